//! The examples in the README work as written.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde_json::{Value, json};
use slirp_tests::*;

const README: &str = include_str!("../../../README.md");
const PROMISES: &str = include_str!("../../README.md");

/// The first block in `language` below a heading.
pub(crate) fn block(heading: &str, language: &str) -> &'static str {
    let section = README.split(&format!("\n## {heading}\n")).nth(1).expect("the heading is there");
    let block = section.split(&format!("\n```{language}\n")).nth(1).expect("it has such a block");
    block.split("\n```\n").next().expect("the block ends")
}

/// As it stands there, in a folder with nothing but the program. What comes before it is for a
/// whole machine, which it changes.
#[test]
fn machine_is_told_about_and_a_server_is_published_by_a_few_commands() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let folder = world.folder().join("bin");
        std::fs::create_dir(&folder).expect("the folder is the test's own");
        std::fs::copy(plugin_under_test(), folder.join("slirp")).expect("likewise");
        let folder = folder.display();
        let run = format!("cd {folder}; PATH={folder}:$PATH\n{}", block("Try it", "sh"));
        let command = [world.account().prefix(), &["timeout", "50", "sh", "-uc", &run]].concat();
        let output = world.host.exec(&command);
        assert!(output.stdout.ends_with("\nHTTP 200\n"), "{}{}", output.stdout, output.stderr);
        assert!(output.stdout.contains("tcp-out"), "{}{}", output.stdout, output.stderr);
    }
}

/// `.ci/run` builds the programs on a bare machine. The headings are those of blocks that tests
/// run.
#[test]
fn every_command_is_run_by_a_test() {
    let sections = README.split("\n## ").skip(1).filter(|section| section.contains("\n```sh\n"));
    let headings: Vec<_> = sections.filter_map(|section| section.lines().next()).collect();
    assert_eq!(headings, ["Install", "Try it", "In place of slirp4netns", "Test it"]);
    assert_eq!(README.matches("\n```sh\n").count(), headings.len());
}

#[test]
fn machine_runs_the_command_that_tests_everything() {
    let command = block("Test it", "sh");
    let line = format!("\n{command} </dev/null\n");
    assert!(include_str!("../../../.ci/run").contains(&line), "{command}");
}

#[test]
fn front_page_and_way_into_the_code_are_short() {
    assert!(README.len() <= 7 * 1024, "README.md: {} bytes", README.len());
    let architecture = include_str!("../../../ARCHITECTURE.md").len();
    assert!(architecture <= 20 * 1024, "ARCHITECTURE.md: {architecture} bytes");
}

/// Adds the path and the text of each source file below `folder`.
fn read_sources(folder: &Path, sources: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
            sources.push((path.display().to_string(), text));
        }
    }
}

#[test]
fn tests_that_keep_promises_exist() {
    let mut sources = Vec::new();
    read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut sources);
    let promises = PROMISES.split("\n## Promises").nth(1).expect("the heading is there");
    let mut named = 0;
    for word in promises.split('`').skip(1).step_by(2) {
        // A file is named by the end of its path.
        let is_there = if word.ends_with(".rs") {
            let end = format!("/{word}");
            sources.iter().any(|(path, _)| path.ends_with(&end))
        } else if word.contains('_') && !word.contains([' ', '/']) {
            let start = format!("fn {word}(");
            sources.iter().any(|(_, text)| text.contains(&start))
        } else {
            continue;
        };
        assert!(is_there, "{word}");
        named += 1;
    }
    assert!(named > 80, "{named}");
}

#[test]
fn podman_runs_the_program_that_two_lines_name() {
    let session =
        needs!(Session::open(&["podman", "conmon", "runc", "newuidmap", "tar", "busybox", "curl"]));
    session.write_settings();
    // Settings that keep Podman off the machine are the system's here, so that the user's are to be
    // made. The program is where the README has it installed, and nowhere else.
    let move_settings = format!(
        "mount -t tmpfs tmpfs /usr/local/bin
        install {binary} /usr/local/bin/slirp4netns
        mkdir -p /etc/containers
        sed /network_cmd_path/d .config/containers/containers.conf > /etc/containers/containers.conf
        rm .config/containers/containers.conf
        mount --bind /bin/false /usr/bin/slirp4netns",
        binary = session.world.reachable_binary().display(),
    );
    let moved = session.exec_as(Account::Root, &["sh", "-euc", &move_settings]);
    assert!(moved.status.success(), "{}", moved.stderr);
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    let snippet = block("In place of slirp4netns", "sh");
    // A reader may go through it again.
    for _ in 0..2 {
        let output = session.exec(&["env", path, "bash", "-euc", snippet]);
        assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("[::ffff:10.0.2.2]:"), "{said}");
        wait_until(IO_LIMIT, "the network is gone", || session.networks().is_empty());
    }
}

#[test]
fn cni_network_forwards_a_port() {
    let world = needs!(World::root());
    let network: Value =
        serde_json::from_str(block("As a CNI plugin", "json")).expect("the network is JSON");
    let mut plugin = network["plugins"][0].clone();
    for inherited in ["cniVersion", "name"] {
        plugin[inherited] = network[inherited].clone();
    }
    assert_eq!(plugin["type"], "slirp");
    let cni = MiniCni::new(&world, &plugin).capability(
        "portMappings",
        json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]),
    );
    let _server = web_server(&world.guest, (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80).into());
    cni.add().expect("the network is added");
    let page = world.remote.script(&format!("curl --silent --max-time 50 http://{HOST}:8080/"));
    assert_eq!(page, "visitor 198.51.100.2\n");
    cni.del().expect("the network is removed");
}

#[test]
fn oci_hook_forwards_the_ports_of_its_annotation() {
    let oci = needs!(Oci::open(Account::Root, "runc"));
    let text = format!("{{{}}}", block("As an OCI hook", "json"));
    let shown: Value = serde_json::from_str(&text).expect("it is a piece of JSON");
    let stages = ["createContainer", "createRuntime", "poststop"];
    let hooks = shown["hooks"].as_object().expect("stages have names");
    assert_eq!(hooks.keys().collect::<Vec<_>>(), stages);
    let annotations = shown["annotations"].clone();
    assert_eq!(annotations["org.slirp.ports"], "8080:80/tcp,127.0.0.1:5353:53/udp");
    // The container of a web server.
    let serve = "echo asked > /page; exec httpd -f -p 80 -h /";
    let process = vec!["sh", "-c", serve];
    let setup = Setup { annotations, process, stages: stages.to_vec(), ..Setup::default() };
    oci.run("readme", &setup).expect("the container runs");
    let world = &oci.session.world;
    let page = || {
        world.remote.exec(&["curl", "--silent", "--max-time", "9", "http://198.51.100.1:8080/page"])
    };
    wait_until(IO_LIMIT, "the page", || page().stdout == "asked\n");
    let sockets = world.host.script("ss -Hlun 'sport = :5353'");
    assert!(sockets.contains("127.0.0.1:5353"), "{sockets}");
    oci.delete("readme");
    assert!(oci.is_clean());
}

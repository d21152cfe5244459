//! The examples in the README work as written.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use slirp_tests::*;

const README: &str = include_str!("../../../README.md");

/// The first block in `language` below a heading.
fn block(heading: &str, language: &str) -> &'static str {
    let section = README.split(&format!("\n## {heading}\n")).nth(1).expect("the heading is there");
    let block = section.split(&format!("\n```{language}\n")).nth(1).expect("it has such a block");
    block.split("\n```\n").next().expect("the block ends")
}

/// The two commands above it are for a whole machine, which they change.
#[test]
fn walk_by_hand_reaches_the_host_and_names() {
    let world = needs!(World::ordinary());
    let _page = web_server(&world.host, (IpAddr::V4(Ipv4Addr::LOCALHOST), 8000).into());
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _dns = Dnsmasq::start(&world.host, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), &[]);
    let lines: Vec<&str> = block("Two commands", "console")
        .lines()
        .map(|line| line.split("   #").next().unwrap_or_default().trim_end())
        .collect();
    // What the harness has done already.
    assert!(lines[0] == "$ unshare --user --map-root-user --net --mount" && lines[2] == "4711");
    let network =
        lines.iter().find_map(|line| line.strip_prefix("$ ./target/release/slirp4netns "));
    let words: Vec<&str> = network.expect("the network is started").split(' ').collect();
    let (pid, options) = (world.guest.pid().to_string(), &words[..words.len() - 2]);
    assert_eq!(words[words.len() - 2], "4711");
    let _slirp =
        world.slirp().bare().options(options).positionals(&[&pid, words[words.len() - 1]]).start();
    // The commands write to a file of this name.
    world.guest.script("mount -t tmpfs tmpfs /tmp");
    let said: Vec<String> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("unshared# "))
        .filter(|line| *line != "echo $$")
        .map(|line| {
            world.guest.script(&line.replace("https://example.org/", "http://www.example.test/"))
        })
        .collect();
    assert_eq!(said, ["visitor 127.0.0.1\n", "", "visitor 198.51.100.1\n"]);
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
fn shared_network_has_addresses_in_order_and_names() {
    let world = needs!(World::ordinary());
    let section = README.split("\n### Containers that reach each other\n").nth(1);
    let shown = section.and_then(|text| text.split("\n```json\n").nth(1)?.split("\n```\n").next());
    let network: Value = serde_json::from_str(shown.expect("a network")).expect("it is JSON");
    let mut plugin = network["plugins"][0].clone();
    for inherited in ["cniVersion", "name"] {
        plugin[inherited] = network[inherited].clone();
    }
    let first = Container::join(&world, "web", &plugin).expect("the first is added");
    let second = Container::join(&world, "client", &plugin).expect("the second is added");
    let said = (first.address().to_string(), second.address().to_string());
    assert_eq!(said, ("10.0.2.100".to_owned(), "10.0.2.101".to_owned()));
    let _server = web_server(&first.namespace, (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80).into());
    let page = second.namespace.script("curl --silent --max-time 50 http://web/");
    assert_eq!(page, "visitor 10.0.2.101\n");
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

//! The examples in the README of the CNI plugin work as written. Of containerd's example, only the
//! network is tried.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::{Value, json};
use slirp_tests::*;

const README: &str = include_str!("../../../cni-plugin/README.md");

/// Folders that the README writes to on the host, as the session's own; the plugin lies where cargo
/// leaves it. Building is what the test has done already.
const INSTALL_SCRIPT: &str =
    "for folder in /opt /usr/local/bin; do mount -t tmpfs tmpfs $folder; done
    install -D PLUGIN target/release/slirp
    ln -s /bin/true /usr/local/bin/cargo
    PATH=/usr/local/bin:$PATH";

/// Settings that keep Podman off the machine. They are the system's, so that the user's are those
/// of the README.
const PODMAN_SCRIPT: &str =
    "for folder in /run /var/lib /var/cache; do mount -t tmpfs tmpfs $folder; done
    mkdir -p /etc/containers
    cat > /etc/containers/containers.conf <<END
[engine]
runtime = \"runc\"
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
[containers]
log_driver = \"k8s-file\"
END
    printf '[storage]\\ndriver = \"vfs\"\\n' > /etc/containers/storage.conf";

/// What cnitool does with a file that holds one configuration. No package has cnitool itself.
const CNITOOL_SCRIPT: &str = "cat > /usr/local/bin/cnitool <<'END'
#!/bin/sh -eu
for file in \"$NETCONFPATH\"/*.conf; do
    [ \"$(jq -r .name \"$file\")\" = \"$2\" ] || continue
    export CNI_COMMAND=\"$(echo \"$1\" | tr a-z A-Z)\" CNI_CONTAINERID=cnitool
    export CNI_NETNS=\"$3\" CNI_IFNAME=eth0
    exec \"$CNI_PATH/$(jq -r .type \"$file\")\" < \"$file\"
done
echo \"no net configuration with name $2\" >&2
exit 1
END
chmod 0755 /usr/local/bin/cnitool";

/// The first block in `language` below a heading, or below the title where the heading is empty.
fn block(heading: &str, language: &str) -> &'static str {
    let section = if heading.is_empty() {
        README
    } else {
        README.split(&format!("\n## {heading}\n")).nth(1).expect("the heading is there")
    };
    let block = section.split(&format!("\n```{language}\n")).nth(1).expect("it has such a block");
    block.split("\n```\n").next().expect("the block ends")
}

fn run(session: &Session, account: Account, script: &str) -> String {
    let output = session.exec_as(account, &["bash", "-euc", script]);
    assert!(output.status.success(), "{script}\n{}{}", output.stdout, output.stderr);
    output.stdout
}

/// A session in which root has run the first block of the README.
fn install(programs: &[&str]) -> Result<Session, Missing> {
    let session = Session::open(programs)?;
    let plugin = plugin_under_test().to_str().expect("the build folder is UTF-8");
    let before = INSTALL_SCRIPT.replace("PLUGIN", plugin);
    run(&session, Account::Root, &format!("{before}\n{}", block("", "sh")));
    Ok(session)
}

/// The plugin's processes have ended when a runtime says that a container is gone.
fn assert_nothing_runs(session: &Session) {
    let processes = session.processes();
    let is_keeper = |argument: &String| argument == "keep-attachment";
    let is_there = processes.iter().any(|process| process.arguments.iter().any(is_keeper));
    assert!(!is_there, "{processes:?}");
}

/// In seconds; a line that hangs is a failed test.
const TERMINAL_LIMIT: &str = "60";

/// A shell that a person types into.
struct Terminal {
    shell: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Terminal {
    /// Opens it by this command.
    fn open(session: &Session, command: &str) -> Self {
        let mut shell = session
            .command(&["timeout", TERMINAL_LIMIT, "sh", "-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        let stdin = shell.stdin.take().expect("stdin is a pipe");
        let stdout = BufReader::new(shell.stdout.take().expect("stdout is a pipe"));
        let mut terminal = Self { shell, stdin, stdout };
        terminal.type_in("exec 2>&1");
        terminal
    }

    /// What a line prints, and whether it succeeds.
    fn type_in(&mut self, line: &str) -> (String, bool) {
        writeln!(self.stdin, "{line}\necho \"END $?\"").expect("the shell reads");
        let mut said = String::new();
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).expect("the shell's output is text");
            assert!(!line.is_empty(), "the shell has ended: {said}");
            if let Some(status) = line.strip_prefix("END ") {
                return (said, status == "0\n");
            }
            said.push_str(&line);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn cnitool_gives_an_unshared_shell_its_network() {
    let session = needs!(install(&["jq", "curl"]));
    run(&session, Account::Root, CNITOOL_SCRIPT);
    let _page = web_server(&session.world.host, (IpAddr::V4(Ipv4Addr::LOCALHOST), 8000).into());
    // The folder for temporary files is that of the machine.
    let walk = block("cnitool, as an ordinary user", "console").replace("/tmp/pid", "$HOME/pid");
    let (unshare, walk) = walk.split_once('\n').expect("it has several lines");
    let unshare = unshare.strip_prefix("$ ").expect("the first terminal");
    let mut unshared = Terminal::open(&session, unshare);
    let mut outside = Terminal::open(&session, "PATH=/usr/local/bin:$PATH exec sh");
    let mut said = Vec::new();
    for line in walk.lines().filter(|line| !line.is_empty()) {
        let (text, is_done) = match line.split_once("unshared# ") {
            Some((_, line)) => unshared.type_in(line),
            None => outside.type_in(line.strip_prefix("$ ").expect("a line is typed")),
        };
        assert!(is_done, "{line}: {text}");
        said.push(text);
    }
    let is_said = |part: &str| said.iter().any(|text| text.contains(part));
    assert!(is_said("\"10.0.2.100/24\""), "the result: {said:?}");
    assert!(is_said("inet 10.0.2.100/24"), "{said:?}");
    assert!(is_said("visitor 127.0.0.1\n"), "{said:?}");
    assert!(!unshared.type_in("ip addr show eth0 2>&1").1, "the interface is gone");
    assert_nothing_runs(&session);
}

#[test]
fn podman_publishes_a_port_of_the_network_that_two_files_describe() {
    needs!(is_there("/usr/lib/cni"));
    let session =
        needs!(install(&["podman", "conmon", "runc", "newuidmap", "tar", "busybox", "curl"]));
    run(&session, Account::Root, PODMAN_SCRIPT);
    // A reader may go through it again.
    for _ in 0..2 {
        let said = run(&session, Account::Ordinary, block("Podman, with its CNI backend", "sh"));
        assert!(said.contains("inet 10.0.2.55/24"), "{said}");
    }
    assert_nothing_runs(&session);
}

#[test]
fn network_for_containerd_forwards_a_port() {
    let world = needs!(World::root());
    let walk = block("containerd and nerdctl", "sh");
    let file = walk.split("<<'END'\n").nth(1).and_then(|text| text.split("\nEND\n").next());
    let network: Value =
        serde_json::from_str(file.expect("a file is written")).expect("it is JSON");
    let mut plugin = network["plugins"][0].clone();
    for inherited in ["cniVersion", "name"] {
        plugin[inherited] = network[inherited].clone();
    }
    let port = json!([{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" }]);
    let cni = MiniCni::new(&world, &plugin).capability("portMappings", port);
    let _server = web_server(&world.guest, (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80).into());
    cni.add().expect("the network is added");
    let page = world.remote.script(&format!("curl --silent --max-time 50 http://{HOST}:8080/"));
    assert_eq!(page, "visitor 198.51.100.2\n");
    cni.del().expect("the network is removed");
}

#[test]
fn runc_publishes_a_port_of_a_bundle_with_three_hooks() {
    let session = needs!(install(&["runc", "newuidmap", "jq", "busybox"]));
    let rootfs = "mkdir -p rootfs/bin; cp \"$(command -v busybox)\" rootfs/bin/";
    run(&session, Account::Ordinary, rootfs);
    let (until_deletion, deletion) =
        block("runc and crun", "sh").rsplit_once('\n').expect("it has several lines");
    let said = run(&session, Account::Ordinary, until_deletion);
    assert!(said.contains("inet 10.0.2.100/24"), "{said}");
    let ports = || session.world.host.script("ss -Hltn 'sport = :8080'");
    assert!(ports().contains(":8080"));
    run(&session, Account::Ordinary, deletion);
    assert_eq!(ports(), "");
    assert_nothing_runs(&session);
}

#[test]
fn shared_network_has_addresses_in_order_and_names() {
    let world = needs!(World::ordinary());
    let network: Value =
        serde_json::from_str(block("Shared networks", "json")).expect("the network is JSON");
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

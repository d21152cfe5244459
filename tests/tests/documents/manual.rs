//! The scripts in the manual page do what it says.

use std::net::{IpAddr, Ipv4Addr};

use slirp_tests::*;

const PAGE: &str = include_str!("../../../slirp-cli/man/slirp4netns.1");

/// The example that begins with this line, as a reader would type it.
fn example(first: &str) -> String {
    let examples = PAGE.split("\n.Sh EXAMPLES\n").nth(1).expect("the page has examples");
    let from = examples.find(first).expect("the example is there");
    let text = examples[from..].split("\n.Ed\n").next().unwrap_or_default();
    text.replace("\\e", "\\").replace("\\-", "-")
}

#[test]
fn walk_by_hand_reaches_the_host_and_names() {
    let world = needs!(World::ordinary());
    let _page = web_server(&world.host, (IpAddr::V4(Ipv4Addr::LOCALHOST), 8000).into());
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _dns = Dnsmasq::start(&world.host, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), &[]);
    let walk = example("$ unshare ");
    let lines: Vec<&str> =
        walk.lines().map(|line| line.split("   #").next().unwrap_or_default().trim_end()).collect();
    // What the harness has done already.
    assert!(lines[0] == "$ unshare --user --map-root-user --net --mount" && lines[2] == "4711");
    let network = lines.iter().find_map(|line| line.strip_prefix("$ slirp4netns "));
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
    assert_eq!(said, ["visitor 127.0.0.1\n", "", "", "visitor 198.51.100.1\n"]);
}

#[test]
fn command_gets_a_network_that_ends_with_it() {
    let world = needs!(World::root());
    let script = world.folder().join("script");
    std::fs::write(&script, example("#!/bin/bash\n")).expect("the folder is the test's own");
    let path = world.folder().join("bin");
    std::fs::create_dir(&path).expect("the folder is the test's own");
    std::os::unix::fs::symlink(binary_under_test(), path.join("slirp4netns")).expect("likewise");
    let run = format!("PATH={}:$PATH exec timeout 50 bash {}", path.display(), script.display());
    let output = world.host.exec(&["sh", "-c", &run]);
    assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
    let route = "198.51.100.2 via 10.0.2.2 dev tap0 src 10.0.2.100";
    assert!(output.stdout.starts_with(route), "{}", output.stdout);
    // Everything that the script has started has its PATH.
    let path = path.display().to_string();
    wait_until(IO_LIMIT, "the network to end", || {
        let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
        !processes.into_iter().any(|process| {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&path)
        })
    });
}

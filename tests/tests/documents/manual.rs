//! The scripts in the manual page do what it says.

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

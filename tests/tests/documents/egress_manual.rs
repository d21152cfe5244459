//! The recipes of slirp-egress(7) start as written, and do what they say.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use slirp_tests::*;

const PAGE: &str = include_str!("../../../slirp-cli/man/slirp-egress.7");

/// The text between `start` and the next line that begins with `end`.
fn part(start: &str, end: &str) -> &'static str {
    let rest = PAGE.split(start).nth(1).unwrap_or_else(|| panic!("{start:?} is there"));
    rest.split(end).next().unwrap()
}

/// The steps of the examples in a part of the page, without their prompts and line ends.
fn steps(part: &str) -> Vec<String> {
    let blocks = part.split("\n.Bd -literal -offset indent\n").skip(1);
    let text: String = blocks
        .map(|block| block.split("\n.Ed\n").next().unwrap())
        .fold(String::new(), |text, block| {
            format!("{text}\n{}", block.replace("\\e\n", " ").replace("\\-", "-"))
        });
    text.split("\n$ ").skip(1).map(str::to_owned).collect()
}

/// Writes the files that `cat` shows.
fn write_files(world: &World, steps: &[String]) {
    for step in steps {
        if let Some((file, text)) =
            step.strip_prefix("cat ").and_then(|shown| shown.split_once('\n'))
        {
            std::fs::write(world.folder().join(file), format!("{text}\n")).unwrap();
        }
    }
}

/// The options of a network that a step starts for process 4711.
fn options(step: &str) -> Option<Vec<&str>> {
    let line = step.lines().next()?.strip_prefix("slirp4netns ")?.strip_suffix(" 4711 tap0")?;
    Some(line.split_whitespace().collect())
}

#[test]
fn every_network_of_the_recipes_starts() {
    let world = needs!(World::root());
    let recipes = part("\n.Sh RECIPES\n", "\n.Sh ");
    let steps = steps(recipes);
    write_files(&world, &steps);
    // What a person writes after having read what was learnt.
    std::fs::write(world.folder().join("box.policy"), "allow 203.0.113.0/24\n").unwrap();
    let folder = world.folder().display().to_string();
    let mut count = 0;
    for options in steps.iter().filter_map(|step| options(step)) {
        world.slirp().bare().behind(&["env", "-C", &folder]).options(&options).start();
        count += 1;
    }
    assert_eq!(count, 6);
}

#[test]
fn database_is_reached_by_its_address_and_nothing_else_is() {
    let world = needs!(World::root());
    let recipe = steps(part("\n.Ss A client of one database\n", "\n.Ss "));
    let options = options(&recipe[0]).unwrap();
    let address = IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7));
    world.remote.script("ip address add 10.9.8.7/32 dev lo");
    world.host.script(&format!("ip route add 10.9.8.7 via {REMOTE}"));
    let database = TcpServer::echo(&world.remote, (address, 5432).into());
    let other = TcpServer::echo(&world.remote, (address, 5433).into());
    let _slirp = world.slirp().bare().options(&options).start();
    let stream = connect(&world.guest, database.address()).unwrap();
    send_exact(&stream, 1, 1000).unwrap();
    receive_exact(&stream, 1, 1000).unwrap();
    assert!(connect(&world.guest, other.address()).is_err());
}

#[test]
fn container_of_the_recipe_is_limited() {
    let world = needs!(World::ordinary());
    let recipe = steps(part("\n.Ss Bandwidth of a CNI container\n", "\n.Sh "));
    let list = recipe[0].split_once('\n').unwrap().1;
    let list: Value = serde_json::from_str(list).unwrap();
    let cni = MiniCni::new(&world, &list["plugins"][0]);
    cni.add().unwrap();
    assert_eq!(
        cni.attachments()[0]["rates"],
        json!({
            "in": { "bitsPerSecond": 10_000_000, "burst": 500_000 },
            "out": { "bitsPerSecond": 2_000_000, "burst": 100_000 },
        })
    );
    cni.del().unwrap();
}

#[test]
fn launcher_is_greeted_and_answered() {
    let world = needs!(World::root());
    let example = steps(part("\n.Sh CONTROL SOCKET\n", "\n.Sh "));
    write_files(&world, &example);
    let script = world.folder().join("launcher.py");
    // Its network is to end with the test.
    let text = std::fs::read_to_string(&script).unwrap();
    let text = text.replace("4711", &world.guest.pid().to_string());
    std::fs::write(&script, text.replace("\"--ask", "\"--exit-with-netns\", \"--ask")).unwrap();
    let path = world.folder().join("bin");
    std::fs::create_dir(&path).unwrap();
    std::os::unix::fs::symlink(binary_under_test(), path.join("slirp4netns")).unwrap();
    // The network goes on, and writes where the launcher does.
    let folder = world.folder().display();
    let run = format!(
        "PATH={folder}/bin:$PATH exec timeout 50 python3 {folder}/launcher.py >{folder}/said 2>&1"
    );
    let output = world.host.exec(&["sh", "-c", &run]);
    let text = std::fs::read_to_string(world.folder().join("said")).unwrap();
    // Their lines may be mixed, since both write as it comes.
    let said = text.replace("Netmask", "");
    assert!(said.contains("['read', 'decide']") && said.contains("ask"), "{output:?}{text}");
}

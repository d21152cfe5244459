//! A well-known article on runc's network, step by step, with the hook under test in place of its
//! bridge: the commands that a person types in the containers and on the host, and their output.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use slirp_tests::*;

/// Runtimes and users that the article could mean.
const RUNTIMES: [(Account, &str); 3] =
    [(Account::Root, "runc"), (Account::Ordinary, "runc"), (Account::Root, "crun")];

/// What `config.json` of the article says: one hook, no argument, and nothing for the end.
fn article() -> Setup {
    Setup { stages: vec!["prestart"], ..Setup::default() }
}

/// Both columns of blanks of a table are one blank.
fn squeezed(text: &str) -> String {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn two_containers_of_one_configuration_reach_the_world() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let world = &oci.session.world;
        world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
        world.write_resolv_conf("nameserver 127.0.0.54\n");
        let _dns = Dnsmasq::start(&world.host, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)), &[]);
        for id in ["c8179", "c10577"] {
            oci.run(id, &article()).unwrap();
        }
        for id in ["c8179", "c10577"] {
            let shown = squeezed(&oci.exec(id, &["ifconfig"]));
            for part in [
                "eth0 Link encap:Ethernet HWaddr ",
                "inet addr:10.0.2.100 Bcast:10.0.2.255 Mask:255.255.255.0",
                "UP BROADCAST RUNNING MULTICAST MTU:1500 Metric:1",
                "inet addr:127.0.0.1 Mask:255.0.0.0",
                "UP LOOPBACK RUNNING",
            ] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
            let routes = squeezed(&oci.exec(id, &["route"]));
            assert!(routes.contains("default 10.0.2.2 0.0.0.0 UG 0 0 0 eth0"), "{routes}");
            assert!(routes.contains("10.0.2.0 * 255.255.255.0 U 0 0 0 eth0"), "{routes}");
            let words = ["ip", "route", "get", "203.0.113.10", "from", "10.0.2.100"];
            let way = oci.exec(id, &words);
            let expected = "203.0.113.10 from 10.0.2.100 via 10.0.2.2 dev eth0";
            assert!(way.starts_with(expected), "{way}");
            oci.exec(id, &["ping", "-c", "1", "-W", "20", "203.0.113.10"]);
            let script =
                "echo nameserver 10.0.2.3 > /etc/resolv.conf; ping -c 1 -W 20 www.example.test";
            let said = oci.exec(id, &["sh", "-euc", script]);
            assert!(said.contains("(203.0.113.10)"), "{said}");
        }
        for id in ["c8179", "c10577"] {
            oci.delete(id);
        }
        // No hook for the end: the networks end with their containers.
        wait_until(IO_LIMIT, "nothing is left behind", || oci.is_clean());
    }
}

#[test]
fn what_the_host_says_reaches_the_container_through_a_port() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let setup = Setup {
            annotations: json!({ "org.slirp.ports": "5555:10001" }),
            // Its input stays open, as at a terminal. Otherwise it ends its side as soon as it
            // accepts, and a client that sees this first leaves without a word.
            process: vec!["sh", "-c", "sleep 600 | nc -p 10001 -l > /said"],
            ..article()
        };
        oci.run("xyxy12", &setup).unwrap();
        // The port of the host accepts at once. What is said before the container's program listens
        // is lost with a reset, so it is said until it has been heard. The program hears one only.
        let say = "echo the host says HI | busybox nc localhost 5555";
        let heard = ["sh", "-c", "cat /said || :"];
        wait_until(PATIENCE, "it has come through", || {
            oci.session.world.host.exec(&["sh", "-c", say]);
            oci.exec("xyxy12", &heard) == "the host says HI\n"
        });
        oci.delete("xyxy12");
        wait_until(IO_LIMIT, "nothing is left behind", || oci.is_clean());
    }
}

#[test]
fn container_that_joins_has_the_same_interface_routes_and_ports() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let web = vec!["httpd", "-f", "-p", "8100", "-h", "/etc"];
        oci.run("c8179", &Setup { process: web, ..article() }).unwrap();
        oci.exec("c8179", &["sh", "-c", "echo of c8179 > /etc/page"]);
        // With the hook removed, as the article says, and with the hook forgotten.
        for stages in [vec![], vec!["prestart"]] {
            let joins = oci.pid("c8179");
            oci.run("joined", &Setup { joins, stages, ..Setup::default() }).unwrap();
            // The link-local address is tentative for a second.
            for words in
                [&["ip", "-4", "address", "show", "eth0"][..], &["ip", "link", "show"], &["route"]]
            {
                assert_eq!(oci.exec("joined", words), oci.exec("c8179", words));
            }
            let fetch = "until wget -q -O - http://127.0.0.1:8100/page; do sleep 0.05; done";
            let page = oci.exec("joined", &["sh", "-euc", fetch]);
            assert_eq!(page, "of c8179\n");
            assert_eq!(oci.attachments().len(), 1, "one network for both");
            oci.delete("joined");
        }
        oci.delete("c8179");
        wait_until(IO_LIMIT, "nothing is left behind", || oci.is_clean());
    }
}

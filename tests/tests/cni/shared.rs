//! Containers of one shared network reach each other, the host and the world, by addresses, names
//! and ports.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use serde_json::json;
use slirp_tests::*;

const ACCOUNTS: [Account; 2] = [Account::Root, Account::Ordinary];
const BULK: usize = 20 << 20;

/// `count` containers `c1`, `c2`, … on one network.
fn join_all<'w>(world: &'w World, count: usize, config: &serde_json::Value) -> Vec<Container<'w>> {
    (1..=count)
        .map(|number| Container::join(world, &format!("c{number}"), config).unwrap())
        .collect()
}

/// Bytes go there and back through a stream, all of them.
fn assert_echo(from: &Namespace, to: SocketAddr, len: usize) {
    let stream = connect(from, to).expect("the server is reached");
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            send_exact(&stream, 3, len).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        receive_exact(&stream, 3, len).unwrap();
        sending.join().unwrap();
    });
}

fn assert_udp_echo(from: &Namespace, to: SocketAddr, len: usize) {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = from.enter(|| UdpSocket::bind((any, 0))).unwrap();
    socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    let datagram: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
    socket.send_to(&datagram, to).unwrap();
    let mut buffer = vec![0; len + 1];
    let (received, source) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((received, source), (len, to));
    assert_eq!(buffer[..len], datagram);
}

#[test]
fn containers_reach_each_other_by_address_in_both_families() {
    for account in ACCOUNTS {
        let world = needs!(World::of(account));
        let containers = join_all(&world, 3, &json!({ "enableIPv6": true, "mtu": 1500 }));
        assert_eq!(network_processes(&world).len(), 1, "one process serves all");
        let addresses: Vec<Ipv4Addr> = containers.iter().map(Container::address).collect();
        let expected = [100, 101, 102].map(|last| Ipv4Addr::new(10, 0, 2, last));
        assert_eq!(addresses, expected);
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            let (from, to) = (&containers[from], &containers[to]);
            for address in [IpAddr::V4(to.address()), IpAddr::V6(to.address6())] {
                let server = TcpServer::echo(&to.namespace, (address, 0).into());
                assert_echo(&from.namespace, server.address(), 1 << 16);
                let server = UdpServer::echo(&to.namespace, (address, 0).into());
                assert_udp_echo(&from.namespace, server.address(), 1000);
                // In fragments.
                assert_udp_echo(&from.namespace, server.address(), 9000);
                from.namespace.script(&format!("ping -c 2 -i 0.2 -W 20 {address}"));
            }
            from.cni.check().unwrap();
        }
    }
}

#[test]
fn bulk_between_containers_is_exact_and_crosses_in_large_frames() {
    let world = needs!(World::ordinary());
    let config = json!({ "enableIPv6": true, "mtu": 1500 });
    let containers = join_all(&world, 2, &config);
    let (client, server) = (&containers[0], &containers[1]);
    for address in [IpAddr::V4(server.address()), IpAddr::V6(server.address6())] {
        let echo = TcpServer::echo(&server.namespace, (address, 0).into());
        assert_echo(&client.namespace, echo.address(), BULK);
    }
    // Its own namespace's counters, whoever mounted /sys.
    let counters = server.namespace.script("cat /proc/net/dev");
    let line = counters.lines().find(|line| line.trim_start().starts_with("eth0:")).unwrap();
    let numbers: Vec<usize> =
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let (bytes, frames) = (numbers[0], numbers[1]);
    assert!(bytes > 2 * BULK, "{counters}");
    assert!(bytes / frames > 2 * 1500, "{frames} frames for {bytes} bytes");
}

#[test]
fn link_local_addresses_work_between_containers() {
    let world = needs!(World::ordinary());
    let containers = join_all(&world, 2, &json!({ "enableIPv6": true }));
    let shown = containers[1].namespace.script("ip -6 -o addr show dev eth0 scope link");
    let address = shown.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
    wait_until(IO_LIMIT, "the address may be used", || {
        let shown = containers[1].namespace.script("ip -6 -o addr show dev eth0 scope link");
        !shown.contains("tentative")
    });
    containers[0].namespace.script(&format!("ping -c 2 -i 0.2 -W 20 {address}%eth0"));
}

#[test]
fn containers_reach_each_other_by_name() {
    let world = needs!(World::ordinary());
    // It knows no name at all.
    let denial = vec![0, 0, 0x81, 0x83, 0, 0, 0, 0, 0, 0, 0, 0];
    let outside = CannedDns::start(&world.host, "127.0.0.53".parse().unwrap(), denial);
    let config = json!({ "enableIPv6": true, "capabilities": { "aliases": true } });
    let long = "4f1c0ffee4f1c0ffee4f1c0ffee";
    let web = Container::join_with(
        &world,
        Container::alone(&world, Account::Ordinary),
        long,
        &config,
        |cni| {
            cni.arguments("IgnoreUnknown=1;K8S_POD_NAME=Web").capability("aliases", json!(["site"]))
        },
    )
    .unwrap();
    let client = Container::join(&world, "client", &config).unwrap();
    let _server = web_server(&web.namespace, (Ipv4Addr::UNSPECIFIED, 80).into());
    for name in [long, &long[..12], "web", "WEB", "site"] {
        let said = client.namespace.script(&format!("curl -sS --max-time 50 http://{name}/"));
        assert_eq!(said, format!("visitor {}\n", client.address()), "{name}");
        let shown = |kind: &str| {
            let dig = format!("dig +short +tries=1 +timeout=50 @10.0.2.3 {name} {kind}");
            client.namespace.script(&dig)
        };
        assert_eq!(shown("A").trim(), web.address().to_string());
        assert_eq!(shown("AAAA").trim(), web.address6().to_string());
        assert_eq!(shown("MX"), "");
    }
    let of_address = |address: &str| {
        let dig = format!("dig +short +tries=1 +timeout=50 @10.0.2.3 -x {address}");
        client.namespace.script(&dig).trim().to_owned()
    };
    assert_eq!(of_address(&web.address().to_string()), format!("{long}."));
    assert_eq!(of_address(&client.address6().to_string()), "client.");
    let tcp = client.namespace.script("dig +tcp +short +tries=1 +timeout=50 @fd00::3 web A");
    assert_eq!(tcp.trim(), web.address().to_string());
    assert!(outside.queries().is_empty(), "no name of a member has left");
    // Names of no member are asked outside. So is a member's name once the member has gone.
    let ask = |name: &str| {
        client.namespace.exec(&["dig", "+tries=1", "+timeout=50", "@10.0.2.3", name]);
        let asked = outside.queries();
        let is_asked = |label: &str| {
            let wire = format!("{}{label}", char::from(u8::try_from(label.len()).unwrap()));
            asked.iter().any(|query| String::from_utf8_lossy(query).contains(&wire))
        };
        (is_asked("elsewhere"), is_asked("web"))
    };
    assert_eq!(ask("elsewhere"), (true, false));
    web.cni.del().unwrap();
    assert_eq!(ask("web"), (true, true));
}

#[test]
fn no_name_is_answered_where_dns_is_disabled() {
    let world = needs!(World::ordinary());
    let containers = join_all(&world, 2, &json!({ "disableDNS": true }));
    assert_eq!(containers[0].result.get("dns"), None);
    let output =
        containers[0].namespace.exec(&["dig", "+tries=1", "+timeout=1", "@10.0.2.3", "c2"]);
    assert!(!output.status.success(), "{}", output.stdout);
}

#[test]
fn containers_reach_the_world_and_the_host_as_policy_says() {
    for (account, is_open) in [(Account::Root, true), (Account::Ordinary, false)] {
        let world = needs!(World::of(account));
        let config = json!({ "enableIPv6": true, "disableHostLoopback": !is_open });
        let containers = join_all(&world, 2, &config);
        let far = TcpServer::echo(&world.remote, (FAR, 0).into());
        let far6 = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
        let datagrams = UdpServer::echo(&world.remote, (FAR, 0).into());
        let own = TcpServer::echo(&world.host, (Ipv4Addr::LOCALHOST, 0).into());
        for container in &containers {
            let from = &container.namespace;
            assert_echo(from, far.address(), 1 << 20);
            assert_echo(from, far6.address(), 1 << 20);
            assert_udp_echo(from, datagrams.address(), 1000);
            let reached = connect(from, (GATEWAY, own.address().port()).into());
            assert_eq!(reached.is_ok(), is_open);
        }
    }
}

#[test]
fn ports_lead_to_their_container_and_are_free_when_del_returns() {
    for account in ACCOUNTS {
        let world = needs!(World::of(account));
        let join = |id: &str, port: u16| {
            let config = json!({ "portMappings": [{ "hostPort": port, "containerPort": 80 }] });
            Container::join(&world, id, &config)
        };
        let (first, second) = (join("a", 8081).unwrap(), join("b", 8082).unwrap());
        for (container, port) in [(&first, 8081), (&second, 8082)] {
            let _server = TcpServer::start(&container.namespace, container.at(80), {
                let name = container.address().to_string();
                move |stream| drop(std::io::Write::write_all(&mut &stream, name.as_bytes()))
            });
            let said = ask_tcp(&world.remote, (HOST, port).into());
            assert_eq!(said, container.address().to_string());
            container.cni.check().unwrap();
        }
        let failure = join("c", 8082).unwrap_err();
        assert!(failure.message.contains("port mapping 0.0.0.0:8082->80/tcp"), "{failure:?}");
        first.cni.del().unwrap();
        // Nothing waits for anything here: it is free, or the test fails.
        let again = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081)));
        again.expect("the port is free again");
        let _server = TcpServer::echo(&second.namespace, second.at(80));
        assert_echo(&world.remote, (HOST, 8082).into(), 1 << 16);
        second.cni.check().unwrap();
    }
}

#[test]
fn address_is_the_lowest_free_one_or_the_one_that_is_asked_for() {
    let world = needs!(World::ordinary());
    let config = json!({ "enableIPv6": true, "capabilities": { "ips": true } });
    let first = Container::join(&world, "a", &config).unwrap();
    let wish = |id: &str, ips: serde_json::Value| {
        let namespace = Container::alone(&world, Account::Ordinary);
        Container::join_with(&world, namespace, id, &config, |cni| cni.capability("ips", ips))
    };
    let second = wish("b", json!(["10.0.2.101", "fd00::77"])).unwrap();
    let third = Container::join(&world, "c", &config).unwrap();
    assert_eq!(second.address(), Ipv4Addr::new(10, 0, 2, 101));
    assert_eq!(second.address6().to_string(), "fd00::77");
    assert_eq!(third.address(), Ipv4Addr::new(10, 0, 2, 102));
    assert_eq!(third.address6().to_string(), "fd00::101");
    let failure = wish("d", json!(["10.0.2.102"])).unwrap_err();
    assert_eq!(
        failure.message,
        "add slirp eth0: the IP address 10.0.2.102 is that of container c (eth0)"
    );
    let failure = wish("d", json!(["fd00::77"])).unwrap_err();
    assert!(failure.message.contains("fd00::77 is that of container b (eth0)"), "{failure:?}");
    first.cni.del().unwrap();
    let again = Container::join(&world, "e", &config).unwrap();
    assert_eq!(again.address(), Ipv4Addr::new(10, 0, 2, 100), "free again");
}

#[test]
fn newcomer_with_an_old_address_is_reached_at_once() {
    let world = needs!(World::ordinary());
    let config = json!({ "enableIPv6": true });
    let client = Container::join(&world, "client", &config).unwrap();
    let mut known = Vec::new();
    for number in 0..3 {
        let server = Container::join(&world, &format!("s{number}"), &config).unwrap();
        assert_eq!(server.address(), Ipv4Addr::new(10, 0, 2, 101));
        assert!(!known.contains(&server.mac().to_owned()));
        known.push(server.mac().to_owned());
        for address in [IpAddr::V4(server.address()), IpAddr::V6(server.address6())] {
            let echo = TcpServer::echo(&server.namespace, (address, 0).into());
            // The client knows the address from before, with the Ethernet address of another
            // container. Linux would use that for 5 s and ask there for 3 s more (arp(7)).
            if number > 0 {
                let known = client.namespace.script(&format!("ip neighbour show {address}"));
                assert!(known.contains(server.mac()), "it is looked for where it was: {known}");
            }
            assert_echo(&client.namespace, echo.address(), 1000);
        }
        server.cni.del().unwrap();
    }
}

#[test]
fn container_whose_ethernet_address_a_later_plugin_changes_is_reached() {
    let world = needs!(World::ordinary());
    let containers = join_all(&world, 2, &json!({}));
    let server = TcpServer::echo(&containers[1].namespace, containers[1].at(0));
    containers[1].namespace.script("ip link set eth0 address 02:00:00:00:00:99");
    containers[1].cni.check().unwrap();
    let far = TcpServer::echo(&world.remote, (FAR, 0).into());
    connect(&containers[1].namespace, far.address()).unwrap();
    connect(&containers[0].namespace, server.address()).unwrap();
}

#[test]
fn same_ethernet_address_is_refused_with_its_holder() {
    let world = needs!(World::ordinary());
    let config = json!({ "mac": "02:00:00:00:00:07" });
    let _first = Container::join(&world, "a", &config).unwrap();
    let failure = Container::join(&world, "b", &config).unwrap_err();
    assert!(
        failure.message.contains("02:00:00:00:00:07 is that of container a (eth0)"),
        "{failure:?}"
    );
}

#[test]
fn full_network_is_told_with_its_size() {
    let world = needs!(World::ordinary());
    let config = json!({ "cidr": "10.9.9.128/25" });
    // .228 to .254
    let containers = join_all(&world, 27, &config);
    let failure = Container::join(&world, "one-more", &config).unwrap_err();
    assert!(
        failure.message.ends_with(
            "the network slirp has no address left: its 27 containers have all from 10.9.9.228 to \
             10.9.9.254"
        ),
        "{failure:?}"
    );
    containers[13].cni.del().unwrap();
    let again = Container::join(&world, "one-more", &config).unwrap();
    assert_eq!(again.address(), containers[13].address());
}

#[test]
fn configuration_that_differs_is_refused_with_the_difference() {
    let world = needs!(World::ordinary());
    let _first = Container::join(&world, "a", &json!({ "metric": 5 })).unwrap();
    for (config, difference) in [
        (json!({ "mtu": 9000 }), "mtu is 1500, not 9000"),
        (json!({ "cidr": "10.1.0.0/16" }), "cidr is 10.0.2.0/24, not 10.1.0.0/16"),
        (json!({ "enableIPv6": true }), "cidr6 is none, not fd00::/64"),
        (json!({ "disableHostLoopback": true }), "disableHostLoopback is false, not true"),
        (json!({ "outboundAddr": "127.0.0.1" }), "outboundAddr is none, not 127.0.0.1"),
        (json!({ "sandbox": false }), "sandbox is true, not false"),
    ] {
        let failure = Container::join(&world, "b", &config).unwrap_err();
        let expected = format!(
            "add slirp eth0: the network slirp is in use with another configuration: {difference}"
        );
        assert_eq!((failure.code, failure.message), (2, expected));
    }
    // What belongs to each container may differ.
    let second = Container::join(&world, "b", &json!({ "metric": 7 })).unwrap();
    assert!(second.namespace.script("ip route").contains("metric 7"));
    let other = Container::join(&world, "c", &json!({ "name": "other", "mtu": 9000 })).unwrap();
    assert_eq!(other.address(), Ipv4Addr::new(10, 0, 2, 100), "another network");
    assert_eq!(network_processes(&world).len(), 2);
    let reached = connect(&other.namespace, second.at(80));
    assert!(reached.is_err(), "networks are apart");
}

#[test]
fn network_is_shared_by_all_of_its_containers_or_by_none() {
    let world = needs!(World::ordinary());
    let runtime = |namespace: &Namespace, id: &str, shared: bool| {
        MiniCni::new(&world, &json!({ "shared": shared }))
            .container(id)
            .netns(&format!("/proc/{}/ns/net", namespace.pid()))
    };
    let namespaces = [(); 3].map(|()| Container::alone(&world, Account::Ordinary));
    for is_shared in [false, true] {
        let first = runtime(&namespaces[0], "a", is_shared);
        let second = runtime(&namespaces[1], "b", !is_shared);
        first.add().unwrap();
        let failure = second.add().unwrap_err();
        let expected = format!(
            "add slirp eth0: the network slirp is in use with another configuration: shared is \
             {is_shared}, not {}, for a eth0",
            !is_shared
        );
        assert_eq!((failure.code, failure.message), (2, expected));
        assert!(failure.details.contains("another name"), "{}", failure.details);
        assert_eq!(first.attachments().len(), 1, "nothing of it is left");
        assert!(!namespaces[1].exec(&["ip", "link", "show", "eth0"]).status.success());
        // Deleting and collecting go by the name, whatever the configuration says now.
        second.del().unwrap();
        let same = runtime(&namespaces[2], "c", is_shared);
        same.add().unwrap();
        second.gc(Some(json!([{ "containerID": "a", "ifname": "eth0" }]))).unwrap();
        first.check().unwrap();
        runtime(&namespaces[0], "a", !is_shared).del().unwrap();
        assert_eq!(first.attachments(), Vec::<serde_json::Value>::new());
        second.add().unwrap();
        second.del().unwrap();
    }
    assert_eq!(network_processes(&world), Vec::<u32>::new());
}

#[test]
fn shared_network_does_not_go_with_another_program() {
    let world = needs!(World::ordinary());
    let namespace = Container::alone(&world, Account::Ordinary);
    let failure = Container::join_with(&world, namespace, "a", &json!({}), |cni| {
        cni.variable("SLIRP4NETNS", "/usr/bin/slirp4netns")
    })
    .unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (2, "add slirp eth0: shared: true is not supported with SLIRP4NETNS")
    );
}

#[test]
fn dhcp_tells_each_container_its_own_address() {
    let world = needs!(World::ordinary());
    let containers = join_all(&world, 2, &json!({}));
    for container in containers.iter().rev() {
        let said = container.namespace.exec(&[
            "udhcpc",
            "-f",
            "-n",
            "-q",
            "-t",
            "3",
            "-i",
            "eth0",
            "-s",
            "/bin/true",
        ]);
        let wanted = format!("lease of {} obtained", container.address());
        assert!(said.stderr.contains(&wanted), "{said:?}");
    }
    let greedy = containers[1].namespace.exec(&[
        "udhcpc",
        "-f",
        "-n",
        "-q",
        "-t",
        "2",
        "-T",
        "1",
        "-i",
        "eth0",
        "-s",
        "/bin/true",
        "-r",
        "10.0.2.100",
    ]);
    assert!(!greedy.stderr.contains("lease of 10.0.2.100"), "{greedy:?}");
}

#[test]
fn attachments_are_listed_and_removed_by_hand() {
    let world = needs!(World::ordinary());
    let containers = join_all(&world, 2, &json!({}));
    let list = containers[0].cni.attachments();
    let mut shown: Vec<_> = list
        .iter()
        .map(|entry| {
            assert_eq!((&entry["shared"], &entry["state"]), (&json!(true), &json!("running")));
            entry["address"].as_str().unwrap().to_owned()
        })
        .collect();
    shown.sort();
    assert_eq!(shown, ["10.0.2.100", "10.0.2.101"]);
    containers[0].cni.status().unwrap();
    assert!(containers[0].cni.tool(&["rm", "c1"]).status.success());
    assert_eq!(containers[1].cni.attachments().len(), 1);
    containers[1].cni.check().unwrap();
    containers[1].cni.gc(Some(json!([]))).unwrap();
    assert!(containers[1].cni.attachments().is_empty());
}

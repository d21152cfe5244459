//! iperf3 as the peer: many streams at once, and what it says about loss and order. Its speed is
//! not tested.

use serde_json::Value;
use slirp_tests::*;

/// A server for one client, which listens by the time this returns.
fn server(namespace: &Namespace, address: &str) -> Background {
    let server = namespace.spawn(&["iperf3", "--server", "--one-off", "--bind", address]);
    // A look at the socket table, since a connection would be taken for the client.
    wait_until(PATIENCE, "iperf3 listens", || {
        !namespace.script("ss -Hltn sport = :5201").trim().is_empty()
    });
    server
}

/// What a client reports; `options` are separated by spaces.
fn client(namespace: &Namespace, address: &str, options: &str) -> Value {
    let mut command = vec!["iperf3", "--json", "--connect-timeout", "50000", "--client", address];
    command.extend(options.split_whitespace());
    let output = namespace.exec(&command);
    let report: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
    assert!(output.status.success() && report.get("error").is_none(), "{report:#}");
    report
}

fn number(report: &Value, place: &str) -> u64 {
    let value = report.pointer(place).unwrap_or_else(|| panic!("no {place} in {report:#}"));
    value.as_u64().unwrap_or_else(|| panic!("{place} is {value}"))
}

/// Bytes that the streams have sent and received by iperf3's own count, with the direction that
/// `suffix` stands for.
fn totals(report: &Value, suffix: &str) -> (u64, u64) {
    let bytes = |which: &str| number(report, &format!("/end/sum_{which}{suffix}/bytes"));
    (bytes("sent"), bytes("received"))
}

/// That every stream was written to, and that each direction was read. The one thread of an iperf3
/// reads its streams as it comes to them: on a busy machine the time is over before it has come to
/// all. That no stream is left out to its end is tested with programs of our own, in `streams`.
fn assert_every_stream_moved(report: &Value, streams: usize) {
    let ends = report.pointer("/end/streams").and_then(Value::as_array).unwrap();
    assert_eq!(ends.len(), streams, "{report:#}");
    let mut received_by_sender = [0, 0];
    for end in ends {
        let (sent, received) = (number(end, "/sender/bytes"), number(end, "/receiver/bytes"));
        assert!(sent > 0 && received <= sent, "{end:#}");
        let is_reverse = end.pointer("/sender/sender") == Some(&Value::Bool(false));
        received_by_sender[usize::from(is_reverse)] += received;
    }
    let is_both_ways = report.pointer("/end/sum_received_bidir_reverse").is_some();
    let read = received_by_sender.iter().filter(|&&received| received > 0).count();
    assert_eq!(read, 1 + usize::from(is_both_ways), "{report:#}");
}

#[test]
fn eight_streams_each_way_at_once_all_move() {
    let world = needs!(World::root());
    for mtu in ["1500", "65520"] {
        let slirp = world.slirp().options(&["--mtu", mtu]).start();
        let server = server(&world.remote, "203.0.113.10");
        let report = client(&world.guest, "203.0.113.10", "--parallel 8 --bidir --time 2");
        server.finish();
        assert_every_stream_moved(&report, 16);
        for suffix in ["", "_bidir_reverse"] {
            let (sent, received) = totals(&report, suffix);
            assert!(received > 0 && received <= sent, "mtu {mtu}: {received} of {sent}");
        }
        drop(slirp);
    }
}

#[test]
fn asked_bytes_are_sent_and_those_of_the_remote_arrive() {
    const LEN: u64 = 32 << 20;
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    // iperf3 ends once its client has counted enough: as the sender, with much still under way.
    for reverse in [false, true] {
        let server = server(&world.remote, "203.0.113.10");
        let direction = if reverse { "--reverse" } else { "" };
        let options = format!("--parallel 4 --bytes {LEN} {direction}");
        let report = client(&world.guest, "203.0.113.10", &options);
        server.finish();
        assert_every_stream_moved(&report, 4);
        let (sent, received) = totals(&report, "");
        let counted = if reverse { received } else { sent };
        assert!(counted >= LEN, "{sent} sent, {received} received of {LEN}");
    }
}

#[test]
fn paced_datagrams_arrive_whole_and_in_order() {
    let world = needs!(World::root()).online(&[]);
    // 1400 bytes fit one packet, 8000 are fragments on the guest's side.
    for options in
        ["--length 1400", "--length 8000", "--length 1400 --reverse", "--length 8000 --reverse"]
    {
        let server = server(&world.remote, "203.0.113.10");
        let options = format!("--udp --bitrate 4M --time 1 {options}");
        let report = client(&world.guest, "203.0.113.10", &options);
        server.finish();
        assert!(number(&report, "/end/sum/packets") > 30, "{report:#}");
        assert_eq!(number(&report, "/end/sum/lost_packets"), 0, "{options}: {report:#}");
        let stream = report.pointer("/end/streams/0/udp").unwrap();
        assert_eq!(number(stream, "/out_of_order"), 0, "{options}: {report:#}");
    }
}

#[test]
fn streams_through_a_published_port_move_both_ways() {
    let world = needs!(World::root());
    let _slirp = world.slirp().options(&["--publish", "5201:5201"]).start();
    let server = server(&world.guest, "0.0.0.0");
    let report = client(&world.host, "127.0.0.1", "--parallel 4 --bidir --time 1");
    server.finish();
    assert_every_stream_moved(&report, 8);
    for suffix in ["", "_bidir_reverse"] {
        let (sent, received) = totals(&report, suffix);
        assert!(received > 0 && received <= sent, "{received} of {sent}");
    }
}

#[test]
fn streams_of_ipv6_move_both_ways() {
    let world = needs!(World::root());
    let _slirp = world.slirp().options(&["--enable-ipv6"]).start();
    world.wait_for_ipv6("fd00:");
    let address = FAR_V6.to_string();
    let server = server(&world.remote, &address);
    let report = client(&world.guest, &address, "--parallel 2 --bidir --time 1");
    server.finish();
    assert_every_stream_moved(&report, 4);
}

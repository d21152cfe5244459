//! Which resolver is asked when the first one fails.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{PATIENCE, Scripted, answer, answer_with, closed_port, config_of, query, with_client};
use crate::event::DnsTransport;

#[tokio::test]
async fn silent_resolver_is_passed_over_and_remembered() {
    let silent = Scripted::start(|_, _| vec![]).await;
    let good = Scripted::start(|_, query| vec![answer_with(query, 2)]).await;
    with_client(config_of(&[silent.address, good.address]), async |mut client| {
        for name in ["one", "two", "three"] {
            let query = query(name);
            assert_eq!(client.ask_udp(&query).await, Some(answer_with(&query, 2)));
        }
    })
    .await;
    assert_eq!(silent.times_asked(), 1);
    assert_eq!(good.times_asked(), 3);
}

#[tokio::test]
async fn failed_resolver_gets_its_place_back() {
    let first =
        Scripted::start(
            |_, query| {
                if query[13] == b'o' { vec![] } else { vec![answer_with(query, 1)] }
            },
        )
        .await;
    let second = Scripted::start(|_, query| vec![answer_with(query, 2)]).await;
    let mut config = config_of(&[first.address, second.address]);
    config.failed_for = Duration::ZERO;
    with_client(config, async |mut client| {
        assert_eq!(client.ask_udp(&query("one")).await, Some(answer_with(&query("one"), 2)));
        assert_eq!(client.ask_udp(&query("two")).await, Some(answer_with(&query("two"), 1)));
    })
    .await;
}

#[tokio::test]
async fn late_answer_of_the_first_resolver_is_taken() {
    // The first resolver answers only after the second was asked; the second stays silent.
    let mut second = Scripted::start(|_, _| vec![]).await;
    let (udp, _tcp) = super::bind_pair(std::net::Ipv4Addr::LOCALHOST.into()).await;
    let mut config = config_of(&[udp.local_addr().unwrap(), second.address]);
    config.timeout = Duration::from_secs(20);
    with_client(config, async |mut client| {
        let query = query("slow");
        client.send(DnsTransport::Udp, &query).await;
        let mut buffer = [0; 512];
        let (len, peer) = udp.recv_from(&mut buffer).await.unwrap();
        second.questions.recv().await.unwrap();
        udp.send_to(&answer_with(&buffer[..len], 1), peer).await.unwrap();
        let (_, answer) = client.next_answer().await;
        assert_eq!(answer.unwrap()[2..], answer_with(&query, 1)[2..]);
    })
    .await;
}

#[tokio::test]
async fn refused_resolver_costs_no_time() {
    let good = Scripted::start(|_, query| vec![answer_with(query, 2)]).await;
    let mut config = config_of(&[closed_port().await, good.address]);
    // Waiting for a timeout would end the test.
    config.timeout = Duration::from_secs(3600);
    config.failover_after = Duration::from_secs(3600);
    config.total_timeout = Duration::from_secs(3600);
    with_client(config, async |mut client| {
        for transport in [DnsTransport::Udp, DnsTransport::Tcp] {
            let query = query("x");
            assert_eq!(client.ask(transport, &query).await, Some(answer_with(&query, 2)));
        }
    })
    .await;
}

#[tokio::test]
async fn declined_query_goes_to_the_next_resolver() {
    for code in [2, 4, 5] {
        let bad = Scripted::start(move |_, query| vec![answer(query, code, [0; 3], &[])]).await;
        let good = Scripted::start(|_, query| vec![answer_with(query, 2)]).await;
        with_client(config_of(&[bad.address, good.address]), async |mut client| {
            let query = query("x");
            assert_eq!(client.ask_udp(&query).await, Some(answer_with(&query, 2)));
        })
        .await;
    }
}

#[tokio::test]
async fn refusal_of_all_is_passed_on_as_it_came() {
    let first = Scripted::start(|_, query| vec![answer(query, 2, [0; 3], &[])]).await;
    let second = Scripted::start(|_, query| vec![answer(query, 5, [1, 0, 0], b"??")]).await;
    with_client(config_of(&[first.address, second.address]), async |mut client| {
        let query = query("x");
        assert_eq!(client.ask_udp(&query).await, Some(answer(&query, 5, [1, 0, 0], b"??")));
    })
    .await;
    assert_eq!((first.times_asked(), second.times_asked()), (1, 1));
}

#[tokio::test]
async fn nobody_there_is_told_at_once_and_silence_after_all_attempts() {
    let mut config = config_of(&[closed_port().await]);
    config.timeout = Duration::from_secs(3600);
    config.total_timeout = Duration::from_secs(3600);
    with_client(config, async |mut client| {
        assert_eq!(client.ask_udp(&query("x")).await, None);
        assert_eq!(client.ask(DnsTransport::Tcp, &query("x")).await, None);
    })
    .await;
    let silent = Scripted::start(|_, _| vec![]).await;
    with_client(config_of(&[silent.address]), async |mut client| {
        assert_eq!(client.ask_udp(&query("x")).await, None);
    })
    .await;
    assert_eq!(silent.times_asked(), 2);
}

#[tokio::test]
async fn total_timeout_ends_the_search() {
    let silent = Scripted::start(|_, _| vec![]).await;
    let mut config = config_of(&[silent.address]);
    config.timeout = Duration::from_secs(3600);
    config.failover_after = Duration::from_secs(3600);
    config.total_timeout = Duration::from_millis(200);
    with_client(config, async |mut client| {
        assert_eq!(client.ask_udp(&query("x")).await, None);
    })
    .await;
}

#[tokio::test]
async fn silence_for_one_query_does_not_delay_another() {
    let mut half =
        Scripted::start(
            |_, query| {
                if query[13] == b's' { vec![] } else { vec![answer_with(query, 1)] }
            },
        )
        .await;
    let mut config = config_of(&[half.address]);
    config.timeout = Duration::from_secs(3600);
    config.failover_after = Duration::from_secs(3600);
    with_client(config, async |mut client| {
        let stuck = client.send(DnsTransport::Udp, &query("stuck")).await;
        half.questions.recv().await.unwrap();
        let quick = client.send(DnsTransport::Udp, &query("quick")).await;
        let (answered, answer) = client.next_answer().await;
        assert_eq!(answered, quick);
        assert_ne!(answered, stuck);
        assert!(answer.is_some());
    })
    .await;
}

#[tokio::test]
async fn queries_beyond_the_cap_wait_in_the_channel() {
    let mut server =
        Scripted::start(
            |_, query| {
                if query[13] == b's' { vec![] } else { vec![answer_with(query, 1)] }
            },
        )
        .await;
    let mut config = config_of(&[server.address]);
    config.queries_cap = 1;
    config.attempts = 1;
    with_client(config, async |mut client| {
        let stuck = client.send(DnsTransport::Udp, &query("stuck")).await;
        server.questions.recv().await.unwrap();
        let quick = client.send(DnsTransport::Udp, &query("quick")).await;
        assert_eq!(client.next_answer().await, (stuck, None));
        assert_eq!(client.next_answer().await.0, quick);
    })
    .await;
}

#[tokio::test]
async fn query_that_nobody_wants_any_more_makes_way_for_others() {
    let mut server =
        Scripted::start(
            |_, query| {
                if query[13] == b's' { vec![] } else { vec![answer_with(query, 1)] }
            },
        )
        .await;
    let mut config = config_of(&[server.address]);
    config.queries_cap = 1;
    config.timeout = 2 * PATIENCE;
    config.total_timeout = 2 * PATIENCE;
    with_client(config, async |mut client| {
        let stuck = client.send(DnsTransport::Udp, &query("stuck")).await;
        server.questions.recv().await.unwrap();
        let unasked = client.send(DnsTransport::Udp, &query("unasked")).await;
        let quick = client.send(DnsTransport::Udp, &query("quick")).await;
        client.give_up(unasked);
        client.give_up(stuck);
        assert_eq!(client.next_answer().await.0, quick);
        assert_eq!(server.asked.lock().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn queries_to_silent_resolvers_have_a_socket_each_and_few_more_between_them() {
    const QUERIES: usize = 16;
    let mut first = Scripted::start(|_, _| vec![]).await;
    let mut second = Scripted::start(|_, _| vec![]).await;
    let mut config = config_of(&[first.address, second.address]);
    config.queries_cap = QUERIES;
    config.attempts = 1;
    config.timeout = PATIENCE;
    config.failover_after = Duration::from_millis(50);
    config.total_timeout = PATIENCE;
    with_client(config, async |mut client| {
        for index in 0..QUERIES {
            client.send(DnsTransport::Udp, &query(&format!("q{index}"))).await;
        }
        for _ in 0..QUERIES {
            first.questions.recv().await.unwrap();
            second.questions.recv().await.unwrap();
        }
        // Connected sockets of this process to either resolver. The table is read in pieces, and a
        // reading misses a socket when another test closes an earlier one meanwhile.
        let ports =
            [first.address, second.address].map(|address| format!(":{:04X} 01", address.port()));
        let is_ours = |line: &&str| ports.iter().any(|port| line.contains(port));
        let mut sockets = BTreeSet::new();
        for _ in 0..8 {
            let table = std::fs::read_to_string("/proc/self/net/udp").unwrap();
            sockets.extend(table.lines().filter(is_ours).map(str::to_owned));
        }
        assert_eq!(sockets.len(), QUERIES + QUERIES / 8, "{sockets:?}");
    })
    .await;
}

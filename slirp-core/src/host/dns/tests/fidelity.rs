//! What goes upstream and what comes back, byte for byte.

use super::{Scripted, answer, answer_with, config_of, query, with_client};
use crate::event::DnsTransport;

/// `message` without its id, which is fresh on every exchange.
fn body(message: &[u8]) -> &[u8] {
    &message[2..]
}

#[tokio::test]
async fn query_goes_upstream_as_it_came_under_a_fresh_id() {
    let server = Scripted::start(|_, query| vec![answer_with(query, 1)]).await;
    let mut odd = query("MiXeD");
    // CD, a reserved bit, and an OPT record with an option of no meaning.
    odd[3] = 0x50;
    odd[11] = 1;
    odd.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0\0\x07\xfd\xe9\0\x03abc");
    with_client(config_of(&[server.address]), async |mut client| {
        for transport in [DnsTransport::Udp, DnsTransport::Tcp] {
            for _ in 0..4 {
                client.send(transport, &odd).await;
                client.next_answer().await.1.unwrap();
            }
        }
    })
    .await;
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|(transport, _)| *transport == DnsTransport::Tcp).count(), 4);
    assert!(asked.iter().all(|(_, seen)| body(seen) == body(&odd)));
    let mut ids: Vec<_> = asked.iter().map(|(_, seen)| [seen[0], seen[1]]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() > 4, "ids repeat: {ids:?}");
}

#[tokio::test]
async fn answers_of_every_kind_come_back_as_they_were() {
    let soa = b"\xc0\x12\0\x06\0\x01\0\0\x03\x84\0\x16\x01n\xc0\x12\x01r\xc0\x12\
        \0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0";
    let unknown = b"\xc0\x0c\xff\xfe\0\x01\0\0\0\x3c\0\x05\xc0\xff\0\x01\x02";
    let opt = b"\0\0\x29\x04\xd0\x01\0\x80\0\0\x07\xfd\xe9\0\x03xyz";
    let shapes: [(u8, [u8; 3], Vec<u8>); 6] = [
        (3, [0, 1, 0], soa.to_vec()),
        (0, [0, 1, 0], soa.to_vec()),
        (0, [1, 0, 0], unknown.to_vec()),
        (0, [1, 0, 1], [&unknown[..], &opt[..]].concat()),
        // Not decodable beyond its question, and not ours to judge.
        (0, [200, 0, 0], b"\xff\xff\xff".to_vec()),
        (1, [0, 0, 0], vec![]),
    ];
    for (code, counts, records) in shapes {
        let sent = records.clone();
        let server =
            Scripted::start(move |_, query| vec![answer(query, code, counts, &sent)]).await;
        with_client(config_of(&[server.address]), async |mut client| {
            for transport in [DnsTransport::Udp, DnsTransport::Tcp] {
                let query = query("x");
                let expected = answer(&query, code, counts, &records);
                assert_eq!(client.ask(transport, &query).await, Some(expected));
            }
        })
        .await;
    }
}

#[tokio::test]
async fn truncated_datagram_is_passed_on_as_it_came() {
    let server = Scripted::start(|_, query| {
        let mut cut = answer_with(query, 7);
        cut[2] |= 2;
        vec![cut]
    })
    .await;
    with_client(config_of(&[server.address]), async |mut client| {
        let query = query("x");
        let mut expected = answer_with(&query, 7);
        expected[2] |= 2;
        assert_eq!(client.ask_udp(&query).await, Some(expected));
    })
    .await;
    assert_eq!(server.times_asked(), 1);
}

#[tokio::test]
async fn forged_answers_are_ignored() {
    let server = Scripted::start(|_, question| {
        let mut wrong_id = answer_with(question, 66);
        wrong_id[0] ^= 1;
        let mut other = query("evil");
        other[..2].copy_from_slice(&question[..2]);
        let mut no_response = answer_with(question, 66);
        no_response[2] &= 0x7f;
        let mut no_question = answer_with(question, 66)[..12].to_vec();
        no_question[5] = 0;
        let runt = question[..2].to_vec();
        let good = answer_with(question, 1);
        vec![wrong_id, answer_with(&other, 66), no_response, no_question, runt, good]
    })
    .await;
    with_client(config_of(&[server.address]), async |mut client| {
        let query = query("good");
        for transport in [DnsTransport::Udp, DnsTransport::Tcp] {
            assert_eq!(client.ask(transport, &query).await, Some(answer_with(&query, 1)));
        }
    })
    .await;
}

#[tokio::test]
async fn error_without_question_is_an_answer() {
    let server = Scripted::start(|_, query| {
        let mut bare = answer(query, 1, [0; 3], &[]);
        bare[5] = 0;
        bare.truncate(12);
        vec![bare]
    })
    .await;
    with_client(config_of(&[server.address]), async |mut client| {
        let answer = client.ask_udp(&query("x")).await.unwrap();
        assert_eq!(body(&answer), b"\x81\x81\0\0\0\0\0\0\0\0");
    })
    .await;
}

#[tokio::test]
async fn zone_transfer_over_tcp_is_not_implemented() {
    let server = Scripted::start(|_, query| vec![answer_with(query, 1)]).await;
    let mut transfer = query("x");
    let end = transfer.len();
    transfer[end - 3] = 252;
    with_client(config_of(&[server.address]), async |mut client| {
        let mut expected = transfer.clone();
        expected[2] |= 0x80;
        expected[3] = 4;
        assert_eq!(client.ask(DnsTransport::Tcp, &transfer).await, Some(expected));
    })
    .await;
    assert_eq!(server.times_asked(), 0);
}

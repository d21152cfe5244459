//! resolv.conf: parsing it, and following its changes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{DnsConfig, Scripted, answer_with, query, with_client};
use crate::host::dns::resolv_conf::{ResolvConf, Settings, Source};

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("slirp-resolv-conf-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    fn write(&self, content: &str) {
        fs::write(self.file(), content).unwrap();
    }

    fn replace(&self, content: &str) {
        let fresh = self.0.join("fresh");
        fs::write(&fresh, content).unwrap();
        fs::rename(fresh, self.file()).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn read(content: &str) -> Settings {
    let directory = Directory::new();
    directory.write(content);
    ResolvConf::new(Source::File(directory.file()), 53, Duration::ZERO)
        .refresh(Instant::now())
        .clone()
}

#[test]
fn all_resolvers_and_options_are_read() {
    let settings = read(
        "# comment\nsearch -- odd..name example.org\nnameserver 127.0.0.53\n\
         nameserver 192.0.2.1\nnameserver fd00::53\nnameserver fe80::1%1\nnameserver fe80::2%lo\n\
         nameserver 192.0.2.1\nnameserver 0.0.0.0\nnonsense\nnameserver nowhere\n\
         options timeout:2 attempts:3 rotate edns0\n",
    );
    let expected = addresses(&[
        "127.0.0.53:53",
        "192.0.2.1:53",
        "[fd00::53]:53",
        "[fe80::1%1]:53",
        "[fe80::2%1]:53",
        "127.0.0.1:53",
    ]);
    assert_eq!(settings.servers, expected);
    assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(2), 3));
    assert!(settings.rotate);
}

#[test]
fn file_without_resolvers_means_this_host() {
    for content in ["", "search example.org\n"] {
        let settings = read(content);
        assert_eq!(settings.servers, addresses(&["127.0.0.1:53", "[::1]:53"]));
        assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(5), 2));
    }
}

#[test]
fn excessive_options_are_limited() {
    let settings = read("nameserver 192.0.2.1\noptions timeout:0 attempts:4000000000\n");
    assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(1), 5));
}

#[test]
fn last_good_content_outlives_every_mishap() {
    let directory = Directory::new();
    let mut file = ResolvConf::new(Source::File(directory.file()), 53, Duration::ZERO);
    let mut servers = move || file.refresh(Instant::now()).servers.clone();
    let local = addresses(&["127.0.0.1:53", "[::1]:53"]);
    let one = addresses(&["192.0.2.1:53"]);
    assert_eq!(servers(), local, "no file yet");
    directory.write("nameserver 192.0.2.1\n");
    assert_eq!(servers(), one);
    fs::remove_file(directory.file()).unwrap();
    assert_eq!(servers(), one, "vanished");
    fs::create_dir(directory.file()).unwrap();
    assert_eq!(servers(), one, "a directory");
    fs::remove_dir(directory.file()).unwrap();
    directory.write("nameserver not-an-address\n");
    assert_eq!(servers(), one, "unreadable line");
    directory.replace("");
    assert_eq!(servers(), one, "emptied, perhaps to be written");
    assert_eq!(servers(), local, "still empty");
    directory.replace("nameserver 192.0.2.2\nnameserver 192.0.2.3\n");
    assert_eq!(servers(), addresses(&["192.0.2.2:53", "192.0.2.3:53"]), "came back");
}

#[test]
fn file_is_looked_at_once_a_second_at_most() {
    let directory = Directory::new();
    directory.write("nameserver 192.0.2.1\n");
    let mut file = ResolvConf::new(Source::File(directory.file()), 53, Duration::from_secs(1));
    let start = Instant::now();
    assert_eq!(file.refresh(start).servers, addresses(&["192.0.2.1:53"]));
    directory.replace("nameserver 192.0.2.22\n");
    let early = start + Duration::from_millis(999);
    assert_eq!(file.refresh(early).servers, addresses(&["192.0.2.1:53"]));
    let due = start + Duration::from_secs(1);
    assert_eq!(file.refresh(due).servers, addresses(&["192.0.2.22:53"]));
}

#[tokio::test]
async fn queries_follow_the_file_while_running() {
    let first = Scripted::start(|_, query| vec![answer_with(query, 1)]).await;
    let port = first.address.port();
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    let second = Scripted::start_at(at("127.0.0.77"), |_, query| vec![answer_with(query, 2)]).await;
    let directory = Directory::new();
    directory.write("nameserver 127.0.0.1\n");
    let config = DnsConfig {
        resolv_conf: directory.file(),
        port,
        recheck_every: Duration::ZERO,
        ..DnsConfig::default()
    };
    with_client(config, async |mut client| {
        let query = query("x");
        assert_eq!(client.ask_udp(&query).await, Some(answer_with(&query, 1)));
        directory.replace("nameserver 127.0.0.77\n");
        assert_eq!(client.ask_udp(&query).await, Some(answer_with(&query, 2)));
        directory.write("# in place\nnameserver 127.0.0.1\n");
        assert_eq!(client.ask_udp(&query).await, Some(answer_with(&query, 1)));
        fs::remove_file(directory.file()).unwrap();
        assert_eq!(client.ask_udp(&query).await, Some(answer_with(&query, 1)));
        directory.write("options rotate\nnameserver 127.0.0.1\nnameserver 127.0.0.77\n");
        for last in [1, 2, 1, 2] {
            assert_eq!(client.ask_udp(&query).await, Some(answer_with(&query, last)));
        }
    })
    .await;
    assert_eq!(second.times_asked(), 3);
}

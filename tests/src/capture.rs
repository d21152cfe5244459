//! A packet capture of the guest's tap, kept when the test fails.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;

use crate::namespace::Namespace;
use crate::slirp::send_signal;

/// A running `tcpdump`. Dropping it removes its file, or prints the path when the test is failing.
#[derive(Debug)]
pub struct Capture {
    child: Option<Child>,
    file: PathBuf,
}

impl Capture {
    /// Starts to record `interface` in `namespace` and waits until the recording runs.
    ///
    /// # Panics
    /// When tcpdump does not start.
    pub fn start(namespace: &Namespace, interface: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slirp-test-{}-{number}.pcap", std::process::id());
        let file = std::env::temp_dir().join(name);
        // Whole headers and a little payload; immediate mode, so that nothing waits in the kernel.
        let shell = format!(
            "exec tcpdump -i {interface} -n -U -s 160 --immediate-mode -Z root -w {}",
            file.display()
        );
        let mut child = namespace
            .network_command(&["sh", "-c", &shell])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let mut said = String::new();
        while !said.contains("listening on") {
            let len = lines.read_line(&mut said).unwrap_or(0);
            assert_ne!(len, 0, "tcpdump did not start: {said}");
        }
        // The pipe stays open until tcpdump ends, for its closing statistics.
        std::thread::spawn(move || {
            let mut rest = String::new();
            while lines.read_line(&mut rest).unwrap_or(0) > 0 {}
        });
        Self { child: Some(child), file }
    }

    /// Decodes what has been recorded so far, one line a packet, those that match a pcap filter
    /// only.
    pub fn packets(&self, filter: &str) -> Vec<String> {
        let output = std::process::Command::new("tcpdump")
            .args(["-n", "-v", "-e", "-t", "-r"])
            .arg(&self.file)
            .arg(filter)
            .output()
            .expect("tcpdump runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut packets: Vec<String> = Vec::new();
        for line in text.lines() {
            match packets.last_mut() {
                // Continuation lines of -v are indented.
                Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
                _ => packets.push(line.to_owned()),
            }
        }
        packets
    }

    /// Where it is recorded.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Capture {
    #[expect(clippy::print_stderr, reason = "a failing test speaks through the runner's capture")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            send_signal(child.id(), Signal::SIGTERM);
            // The child is ours; its status says nothing that matters here.
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- packets of the guest: {}", self.file.display());
        } else {
            // A file that is gone already needs no removal.
            let _ = std::fs::remove_file(&self.file);
        }
    }
}

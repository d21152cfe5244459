//! A virtual machine of QEMU behind a socket of frames.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};

use slirp_tests::*;

/// What the machine does. What it says is looked for below.
const SCRIPT: &str = r#"
ping -c 1 -W 20 10.0.2.2 | grep 'bytes from'
for server in 10.0.2.3 203.0.113.10; do
    nslookup -type=a machine.example "$server" | grep -q 203.0.113.10 && echo "name from $server"
done
wget -q -O /page http://machine.example:8000/page
wget -q -O - --post-file=/page http://machine.example:8000/upload
starts=$(wget -q -O - http://machine.example:8000/starts)
echo "start $starts is over"
[ "$starts" = 1 ] && echo b > /proc/sysrq-trigger
echo o > /proc/sysrq-trigger
"#;

/// What the machine's pages are asked for, from its start to its end.
fn serve(world: &World, page: &[u8]) -> TcpServer {
    let (starts, page) = (AtomicU32::new(0), page.to_vec());
    TcpServer::start(&world.remote, (FAR, 8000).into(), move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut head = Vec::new();
        let mut lines = (&mut reader).lines().map_while(Result::ok);
        head.extend(lines.by_ref().take_while(|line| !line.is_empty()));
        let answer = match head.first().map(String::as_str).unwrap_or_default() {
            line if line.starts_with("GET /page ") => page.clone(),
            line if line.starts_with("POST /upload ") => {
                let mut body = vec![0; page.len()];
                let is_whole = reader.read_exact(&mut body).is_ok() && body == page;
                format!("upload is whole: {is_whole}\n").into()
            }
            _ => (starts.fetch_add(1, Ordering::Relaxed) + 1).to_string().into(),
        };
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
        // A machine that has gone asks for nothing more.
        let _ = (&stream).write_all(&[head.as_bytes(), &answer].concat());
    })
}

#[test]
fn machine_of_qemu_is_on_the_network_before_and_after_a_reboot() {
    let world = needs!(World::root());
    let qemu = needs!(Qemu::new(&world, SCRIPT));
    // Letters: wget of busybox sends a file as a text.
    let letter = |at: u32| b'a' + (at.wrapping_mul(2_654_435_761) >> 28) as u8;
    let page: Vec<u8> = (0..1_000_000).map(letter).collect();
    let _server = serve(&world, &page);
    let names = NameServer::start(&world.remote, FAR);
    names.set_address("machine.example", &FAR.to_string());
    let socket = world.folder().join("frames.sock");
    let slirp = world
        .slirp()
        .bare()
        .options(&["--target-type=stream", "--enable-sandbox", "--enable-seccomp"])
        .options(&[&format!("--dns={FAR}")])
        .positionals(&[socket.to_str().unwrap()])
        .spawn();
    wait_until(PATIENCE, "the socket is there", || socket.exists());

    let path = socket.display();
    let netdev = format!("stream,id=net,server=off,addr.type=unix,addr.path={path}");
    let said = qemu.start(&netdev).finish();
    for (what, count) in [
        ("leased 10.0.2.15/24 via 10.0.2.2, names at 10.0.2.3", 2),
        ("64 bytes from 10.0.2.2", 2),
        ("name from 10.0.2.3", 2),
        ("name from 203.0.113.10", 2),
        ("upload is whole: true", 2),
        ("start 1 is over", 1),
        ("start 2 is over", 1),
    ] {
        assert_eq!(said.matches(what).count(), count, "{what:?} in {said}");
    }
    let exit = slirp.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.ends_with(" has hung up\n"), "{}", exit.stderr);
}

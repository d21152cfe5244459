//! A virtual machine of QEMU: a kernel of Debian, and a shell as its only program.
//!
//! The kernel and the driver of its card come from the folder that `SLIRP_TEST_KERNEL` names, as
//! `vmlinuz` and `e1000.ko`; `.ci/run` unpacks them from a package. QEMU computes every instruction
//! of the machine itself, so no right and no special processor is needed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use slirp_tests::*;

/// How long the machine may take to start twice: 15 seconds where nothing else runs.
const MACHINE_LIMIT: Duration = Duration::from_secs(240);

/// The first program of the machine. What it says is looked for below.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /etc
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
insmod /e1000.ko
ip link set lo up
ip link set eth0 up
cat > /lease <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "nameserver $dns" > /etc/resolv.conf
echo "leased $ip by $serverid, names at $dns"
END
chmod +x /lease
udhcpc -i eth0 -n -q -t 30 -T 1 -s /lease
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
sleep 600
"#;

/// The kernel, its driver, and QEMU.
fn kernel() -> Result<PathBuf, Missing> {
    is_installed("qemu-system-x86_64")?;
    let folder = std::env::var_os("SLIRP_TEST_KERNEL").map(PathBuf::from);
    let unset = || Missing("SLIRP_TEST_KERNEL names no folder with a kernel".to_owned());
    folder.filter(|folder| folder.join("vmlinuz").exists()).ok_or_else(unset)
}

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
    let kernel = needs!(kernel());
    let world = needs!(World::root());
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

    let (folder, kernel) = (world.folder().display(), kernel.display());
    std::fs::write(world.folder().join("init"), INIT).unwrap();
    let script = format!(
        "mkdir -p {folder}/root/bin {folder}/root/dev
        cd {folder}/root
        install -m 0755 ../init init
        cp {kernel}/e1000.ko .
        cp \"$(command -v busybox)\" bin/busybox
        mknod -m 0600 dev/console c 5 1
        find . | busybox cpio -o -H newc > ../initrd 2> /dev/null
        exec timeout --signal=KILL 230 qemu-system-x86_64 -nodefaults -no-user-config \
            -display none -serial stdio -machine q35,accel=tcg -m 192 -kernel {kernel}/vmlinuz \
            -initrd {folder}/initrd -append 'console=ttyS0 quiet panic=-1' \
            -netdev stream,id=net,server=off,addr.type=unix,addr.path={} \
            -device e1000,netdev=net,romfile= < /dev/null 2>&1",
        socket.display()
    );
    let machine = world.host.spawn(&["sh", "-euc", &script]);
    let facts = ProcessFacts(machine.pid());
    wait_until(MACHINE_LIMIT, "the machine is switched off", || !facts.is_alive());
    let said = machine.finish().stdout;
    for (what, count) in [
        ("leased 10.0.2.15 by 10.0.2.2, names at 10.0.2.3", 2),
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

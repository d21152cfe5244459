//! Shell scripts in common use: around bubblewrap, unshare(1) and nsenter(1), with descriptors made
//! by bash.

use std::net::{IpAddr, Ipv4Addr};

use slirp_tests::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A sandbox that waits for its network: what it is to run is `$1`, what connects it is `$2`, which
/// gets `$pid`.
const BUBBLEWRAP: &str = "set -eu
    trap 'cat network.log >&2; kill $(jobs -p)' EXIT
    mkfifo info block ready
    echo nameserver 10.0.2.3 > resolv.conf
    bwrap --unshare-user --unshare-net --unshare-pid --die-with-parent --ro-bind / / \
    --dev-bind /dev /dev --proc /proc \
        --ro-bind resolv.conf \"$(realpath /etc/resolv.conf)\" --info-fd 11 --block-fd 12 \
        sh -euc \"$1\" 11>info 12<>block &
    sandbox=$!
    pid=$(sed -n 's/.*\"child-pid\": \\([0-9]*\\).*/\\1/p' info)
    eval \"$2\" &
    network=$!
    read -rn 1 byte <ready
    [ \"$byte\" = 1 ]
    echo >block
    wait $sandbox
    kill $network
    wait $network || [ $? = 143 ]
    trap - EXIT";

const CURL: &str = "curl --silent --show-error --max-time 50";

fn assert_ended(session: &Session) {
    wait_until(IO_LIMIT, "the session is empty", || session.processes().is_empty());
}

fn resolver(world: &World) -> Dnsmasq {
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    Dnsmasq::start(&world.host, Ipv4Addr::new(127, 0, 0, 54).into(), &[])
}

#[test]
fn bubblewrap_waits_for_its_network() {
    let session = needs!(Session::open(&["bwrap", "bash"]));
    let _dns = resolver(&session.world);
    let _far = web_server(&session.world.remote, (FAR, 80).into());
    let _web = web_server(&session.world.host, (LOOPBACK, 8000).into());
    let inside = format!(
        "{CURL} http://203.0.113.10/ http://www.example.test/; {CURL} http://10.0.2.2:8000/ || \
         echo $?"
    );
    let connect = "exec slirp4netns --configure --mtu=65520 --disable-host-loopback --ready-fd=13 \
        \"$pid\" tap0 13>ready >network.log 2>&1";
    let text = session.succeed(&["bash", "-c", BUBBLEWRAP, "bash", &inside, connect]);
    assert_eq!(text, "visitor 198.51.100.1\nvisitor 198.51.100.1\n7\n");
    assert_ended(&session);
}

#[test]
fn bubblejail_gives_the_user_namespace_by_descriptor() {
    let session = needs!(Session::open(&["bwrap", "bash"]));
    let _web = web_server(&session.world.host, (LOOPBACK, 8000).into());
    let inside = format!("{CURL} http://10.0.2.2:8000/");
    let connect = "exec {users}</proc/$pid/ns/user
        exec slirp4netns --ready=13 --configure --userns-path=/proc/$BASHPID/fd/$users \
        \"$pid\" tap0 13>ready >network.log 2>&1";
    let text = session.succeed(&["bash", "-c", BUBBLEWRAP, "bash", &inside, connect]);
    assert_eq!(text, "visitor 127.0.0.1\n");
    assert_ended(&session);
}

/// A container by unshare(1), entered by nsenter(1) once `$1` has connected `$pid`.
const UNSHARE: &str = "set -eu
    mkfifo hold ready
    unshare --user --map-root-user --net --mount sh -c 'echo $$ >pid; read end <hold' &
    until [ -s pid ] && pid=$(cat pid); do sleep 0.01; done
    exec 20<>hold
    eval \"$1\"
    nsenter --target \"$pid\" --user --net --preserve-credentials curl --silent --show-error \
        --max-time 50 http://10.0.2.2:8000/
    exec 19>&-
    wait $network
    echo \"network $?\"
    echo >&20
    wait";

#[test]
fn closing_the_exit_descriptor_of_a_script_ends_the_network() {
    let session = needs!(Session::open(&["bash"]));
    let _web = web_server(&session.world.host, (LOOPBACK, 8000).into());
    // The reader of a pipe is its exit descriptor; the script holds the writer.
    let connect = "mkfifo life; exec 19<>life
        slirp4netns -c -m 1500 -e 10 -r 11 \"$pid\" tap0 10<life 11>ready 19>&- >network.log 2>&1 &
        network=$!
        read -rn 1 byte <ready; [ \"$byte\" = 1 ]";
    let text = session.succeed(&["bash", "-c", UNSHARE, "bash", connect]);
    assert_eq!(text, "visitor 127.0.0.1\nnetwork 0\n");
    assert_ended(&session);
}

/// Bash takes `10<(…)` for the word `10/dev/fd/63`: descriptor 10 is not open. The script goes on
/// as if nothing were, because the network says that it was ready and then that it ended well.
#[test]
fn exit_descriptor_by_process_substitution_ends_it_at_once() {
    let session = needs!(Session::open(&["bash"]));
    let script = "set -eu
        mkfifo hold
        unshare --user --map-root-user --net sh -c 'echo $$ >pid; read end <hold' &
        until [ -s pid ] && pid=$(cat pid); do sleep 0.01; done
        exec 20<>hold
        # Whoever runs the tests may have left it open.
        exec 10>&-
        slirp4netns -c -e 10 -r 11 \"$pid\" tap0 10<(exec sleep 1) 11>ready
        cat ready
        echo >&20";
    let output = session.exec(&["bash", "-c", script]);
    assert!(output.status.success(), "{}", output.stderr);
    assert!(output.stdout.contains("WARNING: too many arguments"), "{}", output.stdout);
    assert!(output.stderr.contains("exitfd event"), "{}", output.stderr);
    assert!(output.stdout.ends_with('1'), "{}", output.stdout);
}

#[test]
fn namespace_kept_by_a_file_is_given_by_path() {
    let world = needs!(World::root());
    let _web = web_server(&world.host, (LOOPBACK, 8000).into());
    let file = world.folder().join("netns");
    let file = file.to_str().unwrap();
    world.host.script(&format!("touch {file}; unshare --net={file} true"));
    let slirp = world.slirp().options(&["--netns-type=path"]).positionals(&[file, "tap0"]).start();
    let text = world.host.script(&format!("nsenter --net={file} {CURL} http://10.0.2.2:8000/"));
    assert_eq!(text, "visitor 127.0.0.1\n");
    drop(slirp);
    world.host.script(&format!("umount {file}"));
}

#[test]
fn help_is_searched_by_scripts_that_leave_early() {
    let session = needs!(Session::open(&["bash"]));
    // RootlessKit and its scripts, Podman, and others search it.
    let script = "set -euo pipefail
        for option in --netns-type --enable-ipv6 --cidr --disable-host-loopback --api-socket \
            --enable-sandbox --enable-seccomp --mtu --configure --ready-fd --exit-fd --userns-path \
            --disable-dns --macaddress; do
            for try in 1 2 3 4 5; do
                slirp4netns --help | grep -qw -- \"$option\" ||
                    echo \"no $option: ${PIPESTATUS[*]}\"
            done
        done";
    let output = session.exec(&["bash", "-c", script]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    let version = session.succeed(&["bash", "-c", "slirp4netns --version | head -n 1"]);
    assert!(version.starts_with("slirp4netns version 1."), "{version}");
}

#[test]
fn ports_are_asked_for_by_netcat_without_a_half_close() {
    let session = needs!(Session::open(&["bash", "ncat"]));
    session.write_image();
    let connect = "slirp4netns -c \"$pid\" --api-socket /mnt/run/api.sock tap0 -r 11 \
            11>ready >network.log 2>&1 &
        network=$!
        read -rn 1 byte <ready; [ \"$byte\" = 1 ]
        nsenter --target \"$pid\" --user --net --preserve-credentials \
            /usr/bin/python3 who.py 0.0.0.0 80 >served &
        server=$!
        until grep -q serving served; do sleep 0.01; done
        request='{\"execute\": \"add_hostfwd\", \"arguments\": {\"proto\": \"tcp\", \
            \"host_addr\": \"0.0.0.0\", \"host_port\": 8080, \"guest_port\": 80}}'
        echo -n \"$request\" | ncat --no-shutdown -U /mnt/run/api.sock
        ncat --recv-only 127.0.0.1 8080
        kill $server $network
        echo >&20
        exit";
    let text = session.succeed(&["bash", "-c", UNSHARE, "bash", connect]);
    assert_eq!(text, "{\"return\":{\"id\":1}}tcp 10.0.2.2");
}

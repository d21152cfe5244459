//! `pasta COMMAND`: a command on a machine of its own, as root and as an ordinary user.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slirp_tests::*;

/// Whoever runs the tests in the background of a shell has SIGINT and SIGQUIT ignored.
const DEFAULT_SIGNALS: &[&str] = &["env", "--default-signal"];

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the process is there");
}

/// A host on which an account runs commands.
struct Scene {
    world: World,
    program: String,
}

impl Scene {
    fn of(account: Account) -> Result<Self, Missing> {
        let world = World::of(account)?;
        let program = world.folder().join("bin/pasta").display().to_string();
        let mut install = Command::new("install");
        install.args(["-D", "--mode=0755"]).arg(pasta_under_test()).arg(&program);
        assert!(install.status().is_ok_and(|status| status.success()), "it can be copied");
        Ok(Self { world, program })
    }

    /// One scene of each account.
    fn each() -> Result<[Self; 2], Missing> {
        Ok([Self::of(Account::Root)?, Self::of(Account::Ordinary)?])
    }

    /// The command line of a shell's `program`, run by the account.
    fn argv<'a>(&self, words: &[&'a str]) -> Vec<&'a str> {
        [self.world.account().prefix(), DEFAULT_SIGNALS, words].concat()
    }

    /// `pasta --config-net` with these arguments, to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        let pasta = [self.program.as_str(), "--config-net"];
        self.world.host.exec(&self.argv(&[&pasta, arguments].concat()))
    }

    /// What a script says inside that must succeed.
    fn inside(&self, options: &[&str], script: &str) -> String {
        let output = self.run(&[options, &["--", "sh", "-euc", script]].concat());
        assert!(output.status.success(), "`{script}` failed: {}{}", output.stdout, output.stderr);
        assert_eq!(output.stderr, "", "`{script}`");
        output.stdout
    }

    /// What a script of the account says that finds the program as `$PASTA`.
    fn beside(&self, script: &str) -> Output {
        let pasta = format!("PASTA={} --config-net", self.program);
        self.world.host.exec(&self.argv(&["env", &pasta, "sh", "-euc", script]))
    }

    /// A script inside, not awaited.
    fn start(&self, script: &str) -> Background {
        let pasta = [&self.program, "--config-net", "--", "sh", "-euc", script];
        self.world.host.spawn(&self.argv(&pasta))
    }

    fn file(&self, name: &str) -> String {
        self.world.folder().join(name).display().to_string()
    }

    /// Waits until a file has a whole line.
    fn wait_for_line(&self, name: &str) {
        let path = self.file(name);
        let read = || fs::read_to_string(&path).unwrap_or_default();
        wait_until(PATIENCE, "the file has a line", || read().ends_with('\n'));
    }

    /// The processes that run the program.
    fn processes(&self) -> Vec<u32> {
        let is_ours = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe == Path::new(&self.program))
        };
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        numbers
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(is_ours)
            .collect()
    }

    /// The processes in whose command line there is this word.
    fn called(&self, word: &str) -> Vec<u32> {
        let output = Command::new("pgrep").args(["-f", word]).output().expect("pgrep runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Everything of the host that a run could leave behind.
    fn traces(&self) -> String {
        assert_eq!(self.processes(), [0; 0]);
        self.world.host.script(
            "ip -o link | sed 's/ qlen.*//'; cat /proc/self/mounts; ls -lA /etc /dev/net; \
             hostname; ss -Htulnp",
        )
    }
}

#[test]
fn command_is_root_of_a_machine_of_its_own() {
    for scene in needs!(Scene::each()) {
        let id = match scene.world.account() {
            Account::Root => 0,
            Account::Ordinary => 1500,
        };
        let ids = scene.inside(&[], "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map");
        let map = format!("0 {id} 1");
        let shown: Vec<_> = ids.split_whitespace().collect();
        let shown = shown.join(" ");
        assert_eq!(shown, format!("0 0 {map} {map}"));
        assert_eq!(scene.inside(&[], "cat /proc/self/setgroups"), "deny\n");
        let range = scene.inside(&[], "cat /proc/sys/net/ipv4/ping_group_range");
        assert_eq!(range.split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
        // Process 1 and the command, and nothing of the host.
        let processes = scene.inside(&[], "ls /proc | grep '^[0-9]' | head -n3; cat /proc/1/comm");
        assert!(processes.starts_with("1\n2\n"), "{processes}");
        assert!(processes.ends_with("pasta-init\n"), "{processes}");
        let host = scene.world.host.script("hostname");
        assert_eq!(scene.inside(&[], "hostname"), format!("pasta-{host}"));
        assert_eq!(scene.inside(&["--hostname", "box"], "hostname"), "box\n");
        assert_eq!(scene.world.host.script("hostname"), host);
        let links = "for name in user net mnt pid ipc uts; do readlink /proc/self/ns/$name; done";
        let (ours, hosts) = (scene.inside(&[], links), scene.world.host.script(links));
        for (ours, host) in ours.lines().zip(hosts.lines()) {
            assert_ne!(ours, host);
        }
    }
}

#[test]
fn user_namespace_may_stay_the_callers() {
    let scene = needs!(Scene::of(Account::Root));
    let user = "readlink /proc/self/ns/user";
    let before = scene.traces();
    assert_eq!(scene.inside(&["--netns-only"], user), scene.world.host.script(user));
    assert_eq!(scene.traces(), before, "no mount comes back");
    let output = scene.run(&["--userns", "/proc/self/ns/user", "--", "true"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.starts_with("--userns needs PID or --netns"), "{}", output.stderr);
}

#[test]
fn network_is_there_before_the_command() {
    for scene in needs!(Scene::each()) {
        let far = SocketAddr::from((FAR, 7000));
        let _far = TcpServer::start(&scene.world.remote, far, |mut stream| {
            let _ = stream.write_all(b"from afar\n");
        });
        let names = NameServer::start(&scene.world.remote, REMOTE);
        names.set_address("web.example.test", "203.0.113.10");
        scene.world.write_resolv_conf(&format!("nameserver {REMOTE}\nsearch example.test\n"));
        let shown = scene.inside(&[], "ip -br addr show h0; ip route show default");
        assert!(shown.contains("198.51.100.1/24"), "{shown}");
        assert!(shown.contains("2001:db8:1::1/64") && !shown.contains("tentative"), "{shown}");
        assert!(shown.contains("default via 198.51.100.2"), "{shown}");
        assert_eq!(scene.inside(&[], "socat -u TCP:203.0.113.10:7000 -"), "from afar\n");
        let by_name = "getent ahostsv4 web | head -n1 | cut -d' ' -f1";
        assert_eq!(scene.inside(&[], by_name), "203.0.113.10\n");
    }
}

#[test]
fn status_is_the_commands() {
    for scene in needs!(Scene::each()) {
        for status in [0, 1, 7, 255] {
            let output = scene.run(&["sh", "-c", &format!("exit {status}")]);
            assert_eq!(output.status.code(), Some(status), "{}", output.stderr);
            assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
        }
        for signal in ["TERM", "KILL", "SEGV", "RTMIN+3"] {
            let script = format!("ulimit -c 0; kill -{signal} $$");
            let number = scene.world.host.script(&format!("bash -c 'kill -l {signal}'"));
            let number: i32 = number.trim().parse().expect("a number");
            let output = scene.run(&["bash", "-c", &script]);
            assert_eq!(output.status.code(), Some(128 + number), "{signal}: {}", output.stderr);
        }
        for (command, why) in
            [("/nonexistent/program", "No such file or directory"), ("/etc", "Permission denied")]
        {
            let output = scene.run(&[command]);
            assert_eq!(output.status.code(), Some(1));
            let text = format!("Failed to start command or shell: {why}\n");
            assert_eq!(output.stderr, text);
        }
    }
}

#[test]
fn without_a_command_the_users_shell_is_a_login_shell() {
    for scene in needs!(Scene::each()) {
        for (shell, expected) in [("SHELL=/bin/sh", "-/bin/sh\n"), ("SHELL=", "-/bin/sh\n")] {
            let output = scene.beside(&format!("echo 'echo $0; exit 3' | {shell} $PASTA || :"));
            assert!(output.stdout.ends_with(expected), "{}{}", output.stdout, output.stderr);
        }
    }
}

#[test]
fn many_in_a_row_and_at_once_leave_nothing() {
    for scene in needs!(Scene::each()) {
        let before = scene.traces();
        let row = "i=0; while [ $i -lt 20 ]; do $PASTA -- true; i=$((i + 1)); done; echo $i";
        let output = scene.beside(row);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("20\n", ""));
        assert_eq!(scene.traces(), before);
        let runs: Vec<_> = (0..10).map(|_| scene.start("ip -o addr show h0 | grep -q .")).collect();
        for run in runs {
            let output = run.finish();
            assert!(output.status.success(), "{}", output.stderr);
        }
        assert_eq!(scene.traces(), before);
    }
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    for scene in needs!(Scene::each()) {
        let word = format!("1000.{}", std::process::id());
        scene.inside(&[], &format!("setsid sleep {word} >/dev/null 2>&1 </dev/null & :"));
        assert_eq!(scene.called(&format!("sleep {word}")), [0; 0]);
    }
}

#[test]
fn orphans_are_reaped() {
    for scene in needs!(Scene::each()) {
        let script = "orphan=$(sh -c 'sleep 0.1 >&- & echo $!'); \
             while [ -e /proc/$orphan ]; do sleep 0.02; done; echo reaped";
        assert_eq!(scene.inside(&[], script), "reaped\n");
    }
}

#[test]
fn killed_pasta_takes_the_command_with_it() {
    for scene in needs!(Scene::each()) {
        for (signal, status) in
            [(Signal::SIGKILL, None), (Signal::SIGTERM, Some(0)), (Signal::SIGQUIT, Some(0))]
        {
            let word = format!("1000.0{}", scene.world.host.pid());
            let begun = scene.file("begun");
            // Whatever the command makes of signals.
            let script = format!("trap '' TERM QUIT; echo 1 > {begun}; sleep {word}; echo");
            let run = scene.start(&script);
            scene.wait_for_line("begun");
            assert_ne!(scene.called(&format!("sleep {word}")), [0; 0]);
            send(run.pid(), signal);
            let output = run.finish();
            assert_eq!(output.status.code(), status, "{}", output.stderr);
            assert_eq!(output.status.signal(), status.is_none().then_some(9));
            let is_over = || scene.called(&word).is_empty() && scene.processes().is_empty();
            wait_until(PATIENCE, "the end of everything", is_over);
            fs::remove_file(&begun).expect("it is there");
        }
    }
}

#[test]
fn other_signals_are_the_commands() {
    for scene in needs!(Scene::each()) {
        for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
            let begun = scene.file("begun");
            let number = signal as i32;
            let script = format!(
                "trap 'echo heard; exit 3' {number}; echo 1 > {begun}; while :; do sleep 0.02; done"
            );
            let run = scene.start(&script);
            scene.wait_for_line("begun");
            send(run.pid(), signal);
            let output = run.finish();
            assert_eq!((output.status.code(), output.stdout.as_str()), (Some(3), "heard\n"));
            fs::remove_file(&begun).expect("it is there");
        }
    }
}

#[test]
fn typed_interrupt_and_stop_are_the_commands() {
    for scene in needs!(Scene::each()) {
        let folder = scene.world.folder().join("tty");
        fs::create_dir(&folder).expect("the folder is writable");
        let shell = scene.argv(&["PS1=", "bash", "--norc", "-i"]).join(" ");
        let terminal = needs!(Terminal::start(&scene.world.host, &folder, &shell));
        let line = format!(
            "pasta() {{ {} --config-net \"$@\"; }}; echo shell is $((1 + 1))",
            scene.program
        );
        terminal.press(&[&line, "Enter"]);
        terminal.wait_for("shell is 2");
        terminal.press(&["pasta -- sh -c 'echo beg''un; exec sleep 1000'", "Enter"]);
        terminal.wait_for("begun");
        terminal.press(&["C-c"]);
        terminal.press(&["echo status is $?", "Enter"]);
        terminal.wait_for("status is 130");
        terminal.press(&["pasta -- sh -c 'echo on''ce; read x; echo got $x; exit 4'", "Enter"]);
        terminal.wait_for("once");
        terminal.press(&["C-z"]);
        terminal.wait_for("Stopped");
        terminal.press(&["fg", "Enter"]);
        let is_back = |screen: &str| screen.matches("bin/pasta --config-net").count() > 1;
        terminal.wait_until("the job is named", is_back);
        terminal.press(&["words", "Enter"]);
        terminal.wait_for("got words");
        terminal.press(&["echo then $?", "Enter"]);
        terminal.wait_for("then 4");
        assert_eq!(scene.processes(), [0; 0]);
    }
}

#[test]
fn pid_file_names_the_process_that_was_started() {
    for scene in needs!(Scene::each()) {
        let file = scene.file("pid");
        let script = format!("exec $PASTA -P {file} -- cat {file}");
        let output = scene.beside(&format!("echo $$; {script}"));
        let mut lines = output.stdout.lines();
        assert_eq!(lines.next(), lines.next(), "{}", output.stderr);
    }
}

/// What Debian's program and ours show alike, where Debian's is installed. It does not run as root.
#[test]
fn command_sees_what_it_sees_beside_debians() {
    const DEBIANS: &str = "/usr/bin/pasta";
    let scene = needs!(Scene::of(Account::Ordinary));
    needs!(is_installed("pasta"));
    for script in [
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups",
        "cat /proc/sys/net/ipv4/ping_group_range",
        "ip -br -4 addr show h0",
        "ip -4 route show default",
        "ip link show h0 | grep -o 'mtu [0-9]*'",
        "grep -E 'Cap|NoNewPrivs' /proc/self/status",
        "pwd; umask; ulimit -n",
    ] {
        let words = |program| [program, "--config-net", "--", "sh", "-euc", script];
        let theirs = scene.world.host.exec(&scene.argv(&words(DEBIANS)));
        let ours = scene.world.host.exec(&scene.argv(&words(&scene.program)));
        assert_eq!(ours.stdout, theirs.stdout, "`{script}`: {}", ours.stderr);
        assert_eq!(ours.status.code(), theirs.status.code());
    }
}

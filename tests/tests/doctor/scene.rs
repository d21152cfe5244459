//! A machine on which everything works, for tests that break one thing of it, and what the doctor
//! says there.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use slirp_tests::*;

/// What the doctor drives, in the order of its table.
pub(crate) const DRIVEN: [&str; 8] =
    ["network", "tcp-out", "tcp-in", "udp", "dns", "ping-gateway", "published-port", "tcp-ipv6"];

/// What makes the host of a world one on which nothing is missing.
const SCRIPT: &str = "echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range
    echo 'tester:x:1500:1500::/:/bin/sh' >> /etc/passwd
    echo 'tester:x:1500:' >> /etc/group
    echo 'tester:100000:65536' | tee /etc/subuid > /etc/subgid";

/// A host, the doctor in it, and the user that runs it.
pub(crate) struct Scene {
    pub(crate) world: World,
    /// A copy of the program that every user can run.
    pub(crate) slirp: PathBuf,
    _resolver: CannedDns,
}

impl Scene {
    pub(crate) fn of(account: Account) -> Result<Self, Missing> {
        is_installed("newuidmap")?;
        let world = World::of(account)?;
        world.host.script(SCRIPT);
        let slirp = world.folder().join("doctor/slirp");
        // By another process: a descriptor of ours that writes to it could be inherited.
        let status = Command::new("install")
            .args(["-D", "--mode=0755"])
            .arg(plugin_under_test())
            .arg(&slirp)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "the program can be copied");
        // An answer without an error and without a record.
        let answer = b"\0\0\x81\x80\0\0\0\0\0\0\0\0".to_vec();
        let address = "127.0.0.53".parse().expect("it is an address");
        let resolver = CannedDns::start(&world.host, address, answer);
        Ok(Self { world, slirp, _resolver: resolver })
    }

    /// The same after a script of root's has broken something of the host.
    pub(crate) fn after(account: Account, script: &str) -> Result<Self, Missing> {
        let scene = Self::of(account)?;
        scene.world.host.script(script);
        Ok(scene)
    }

    /// Runs the doctor by a program before it, such as prlimit(1).
    pub(crate) fn doctor_by(&self, wrapper: &[&str], options: &[&str]) -> Output {
        let slirp = self.slirp.to_str().expect("temporary folders have plain names");
        let argv = [self.world.account().prefix(), wrapper, &[slirp, "doctor"], options].concat();
        self.world.host.exec(&argv)
    }

    pub(crate) fn report(&self) -> Report {
        self.report_by(&[])
    }

    pub(crate) fn report_by(&self, wrapper: &[&str]) -> Report {
        Report::of(&self.doctor_by(wrapper, &["--json"]))
    }

    /// Runs the doctor by a shell script, in which it is `"$@"`.
    pub(crate) fn report_within(&self, wrapper: &[&str], script: &str) -> Report {
        self.report_by(&[wrapper, &["sh", "-euc", script, "sh"]].concat())
    }

    /// How many processes run this scene's copy of the program.
    pub(crate) fn processes(&self) -> usize {
        let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
        let is_copy = |path: PathBuf| {
            std::fs::read_link(path.join("exe")).is_ok_and(|program| program == self.slirp)
        };
        entries.filter(|entry| is_copy(entry.path())).count()
    }
}

/// What the doctor has said.
pub(crate) struct Report {
    pub(crate) object: Value,
    text: String,
}

impl Report {
    fn of(output: &Output) -> Self {
        let object: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
        let status = if object["worst"] == "failure" { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(status), "{object:#}");
        Self { text: format!("{object:#}"), object }
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.object["checks"].as_array().expect("it is a list").iter()
    }

    pub(crate) fn finding(&self, check: &str) -> &Value {
        let mut findings = self.findings();
        findings
            .find(|finding| finding["check"] == check)
            .unwrap_or_else(|| panic!("{check} in {}", self.text))
    }

    /// Asserts that `check` is in this state, that its text and its remedy contain these words, and
    /// that nothing else is wrong: only checks that depend on it may warn.
    pub(crate) fn assert_one(
        &self,
        check: &str,
        state: &str,
        [what, remedy]: [&str; 2],
        dependent: &[&str],
    ) {
        let finding = self.finding(check);
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        assert_eq!(text("state"), state, "{}", self.text);
        assert!(text("what").contains(what), "{finding:#}");
        assert!(text("remedy").contains(remedy), "{finding:#}");
        for other in self.findings().filter(|other| other["check"] != check) {
            let name = other["check"].as_str().unwrap_or_default();
            let expected = if dependent.contains(&name) { "warning" } else { "ok" };
            assert_eq!(other["state"], expected, "{other:#}\nin {}", self.text);
        }
    }

    /// Whether the network was made and driven, and all of it worked.
    pub(crate) fn assert_driven(&self) {
        for check in DRIVEN {
            let finding = self.finding(check);
            assert_eq!(finding["state"], "ok", "{}", self.text);
            assert!(finding["microseconds"].as_u64() > Some(0), "{finding:#}");
            let bytes = finding["bytes"].as_u64();
            assert!(check == "network" || bytes > Some(0), "{finding:#}");
        }
    }
}

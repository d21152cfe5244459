//! A virtual machine of QEMU: a kernel of Debian, and a shell as its only program.
//!
//! The kernel and the driver of its card come from the folder that `SLIRP_TEST_KERNEL` names, as
//! `vmlinuz` and `e1000.ko`; `.ci/run` unpacks them from a package. QEMU computes every instruction
//! of the machine itself, so no right and no special processor is needed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::namespace::Background;
use crate::process::ProcessFacts;
use crate::requirement::{Missing, is_installed};
use crate::wait::wait_until;
use crate::world::World;

/// How long a machine may take for a step: a start takes 7 seconds where nothing else runs.
const MACHINE_LIMIT: Duration = Duration::from_secs(240);

/// How the first program of every machine begins: with a lease of DHCP. The script of a test
/// follows.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /etc
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
insmod /e1000.ko
ip link set lo up
ip link set eth0 up
cat > /lease <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "nameserver $dns" > /etc/resolv.conf
echo "leased $ip/$mask via $router, names at $dns"
END
chmod +x /lease
udhcpc -i eth0 -n -q -t 30 -T 1 -s /lease
"#;

/// What machines of one test start from. They have the programs of busybox, and socat.
#[derive(Debug)]
pub struct Qemu<'w> {
    world: &'w World,
    kernel: PathBuf,
}

impl<'w> Qemu<'w> {
    /// Machines on the host of `world` that get an address and then run `script`. One without an
    /// end of its own is switched off by `echo o > /proc/sysrq-trigger`.
    ///
    /// # Errors
    /// [`Missing`], without a kernel or QEMU.
    ///
    /// # Panics
    /// When the test's folder cannot be written to.
    pub fn new(world: &'w World, script: &str) -> Result<Self, Missing> {
        is_installed("qemu-system-x86_64")?;
        let kernel = std::env::var_os("SLIRP_TEST_KERNEL").map(PathBuf::from);
        let unset = || Missing("SLIRP_TEST_KERNEL names no folder with a kernel".to_owned());
        let kernel = kernel.filter(|folder| folder.join("vmlinuz").exists()).ok_or_else(unset)?;
        // The machine cannot go on without its first program.
        let init = format!("{INIT}{script}\nsleep 600\n");
        std::fs::write(world.folder().join("init"), init).expect("the test's folder is writable");
        world.host.script(&format!(
            "mkdir -p {folder}/root/bin {folder}/root/dev
            cd {folder}/root
            install -m 0755 ../init init
            cp {kernel}/e1000.ko .
            cp \"$(command -v busybox)\" \"$(command -v socat)\" bin
            for library in $(ldd bin/socat | grep -o '/[^ )]*'); do
                install -D \"$library\" \".$library\"
            done
            mknod -m 0600 dev/console c 5 1
            find . | busybox cpio -o -H newc > ../initrd 2> /dev/null",
            folder = world.folder().display(),
            kernel = kernel.display(),
        ));
        Ok(Self { world, kernel })
    }

    /// Starts a machine whose card is connected to `netdev`, which has the id `net`.
    pub fn start(&self, netdev: &str) -> Machine {
        let console = self.world.folder().join("console");
        // What the machine before has said is not what this one says.
        let _ = std::fs::remove_file(&console);
        // The machine ends with this thread even where the test is killed.
        let script = format!(
            "exec setpriv --pdeathsig KILL qemu-system-x86_64 -nodefaults -no-user-config \
                -display none -serial stdio -machine q35,accel=tcg -m 192 \
                -kernel {kernel}/vmlinuz -initrd {folder}/initrd \
                -append 'console=ttyS0 quiet panic=-1' -netdev {netdev} \
                -device e1000,netdev=net,romfile=,mac=52:54:00:12:34:56 \
                < /dev/null > {console} 2>&1",
            kernel = self.kernel.display(),
            folder = self.world.folder().display(),
            console = console.display(),
        );
        Machine { process: self.world.host.spawn(&["sh", "-euc", &script]), console }
    }
}

/// A machine that runs. Dropping it takes its power away.
#[derive(Debug)]
pub struct Machine {
    process: Background,
    console: PathBuf,
}

impl Machine {
    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read(&self.console)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until it has said `text` so many times.
    ///
    /// # Panics
    /// When it does not; with all that it has said.
    pub fn wait_for(&self, text: &str, count: usize) {
        self.wait(text, |said, _| said.matches(text).count() >= count);
    }

    /// Waits until it is switched off. Returns all that it has said.
    ///
    /// # Panics
    /// When it stays on; with all that it has said.
    pub fn finish(self) -> String {
        self.wait("its end", |_, is_alive| !is_alive);
        self.said()
    }

    fn wait(&self, what: &str, is_met: impl Fn(&str, bool) -> bool) {
        let facts = ProcessFacts(self.process.pid());
        let started_at = Instant::now();
        wait_until(Duration::MAX, what, || {
            let is_alive = facts.is_alive();
            let said = self.said();
            let is_met = is_met(&said, is_alive);
            let may_wait = is_alive && started_at.elapsed() < MACHINE_LIMIT;
            assert!(is_met || may_wait, "waited in vain for {what}; it said: {said}");
            is_met
        });
    }
}

//! SHIM: stands in for the parts of `slirp-core` that are being written. Deleted on merge.
#![expect(unsafe_code, reason = "SHIM")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "SHIM")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

pub(crate) use std::alloc::System as LargeAlloc;

pub(crate) fn inherited_fd(raw: i32) -> io::Result<OwnedFd> {
    let fd = unsafe { BorrowedFd::borrow_raw(raw) };
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD)?;
    if raw <= 2 {
        return fd.try_clone_to_owned();
    }
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

pub(crate) mod host {
    pub(crate) mod tap {
        use slirp_core::wire::MacAddr;
        use std::io;
        use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

        #[derive(Debug, thiserror::Error)]
        #[error("not a tap")]
        pub(crate) struct TapError;

        #[derive(Debug)]
        pub(crate) struct Tap(pub(crate) OwnedFd, pub(crate) String);

        impl Tap {
            pub(crate) fn adopt(fd: OwnedFd) -> Result<Self, TapError> {
                Ok(Self(fd, "tap9".to_owned()))
            }
            pub(crate) fn name(&self) -> &str {
                &self.1
            }
            #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "SHIM")]
            pub(crate) fn mac(&self) -> io::Result<Option<MacAddr>> {
                Ok(Some(MacAddr([2, 0, 0, 0, 0, 9])))
            }
        }

        impl AsFd for Tap {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
    }
}

pub(crate) mod netns {
    use super::host::tap::Tap;
    use slirp_core::plan::AddressPlan;
    use slirp_core::wire::MacAddr;
    use std::path::{Path, PathBuf};

    #[derive(Debug, thiserror::Error)]
    #[error("{0}: {1}")]
    pub(crate) struct AttachError(String, &'static str);

    impl AttachError {
        pub(crate) fn hint(&self) -> Option<&'static str> {
            (self.0 == "/dev/net/tun").then_some("modprobe tun")
        }
    }

    #[derive(Debug)]
    pub(crate) struct NamespaceTarget(PathBuf);

    impl NamespaceTarget {
        pub(crate) fn of_pid(pid: i32) -> Result<Self, AttachError> {
            Self::from_paths(&PathBuf::from(format!("/proc/{pid}/ns/net")), None)
        }
        pub(crate) fn from_paths(net: &Path, user: Option<&Path>) -> Result<Self, AttachError> {
            for path in [Some(net), user].into_iter().flatten() {
                if !path.exists() {
                    let name = path.display().to_string();
                    return Err(AttachError(name, nix::errno::Errno::ENOENT.desc()));
                }
            }
            Ok(Self(net.to_owned()))
        }
    }

    #[derive(Debug)]
    pub(crate) struct Configuration {
        pub(crate) mac: Option<MacAddr>,
    }

    impl Configuration {
        pub(crate) fn for_plan(_plan: &AddressPlan, _mtu: u16) -> Self {
            Self { mac: None }
        }
    }

    #[derive(Debug)]
    pub(crate) struct TapRequest {
        pub(crate) name: String,
        pub(crate) configure: Option<Configuration>,
    }

    pub(crate) fn open_tap(
        target: &NamespaceTarget,
        request: &TapRequest,
    ) -> Result<Tap, AttachError> {
        let failed = |_| AttachError("/dev/net/tun".to_owned(), "No such device");
        let _ = (&target.0, request.configure.as_ref().map(|c| c.mac));
        let file = std::fs::File::open("/dev/null").map_err(failed)?;
        Ok(Tap(file.into(), request.name.clone()))
    }
}

pub(crate) mod instance {
    use super::host::tap::Tap;
    use slirp_core::plan::AddressPlan;
    use slirp_core::policy::Policy;
    use std::sync::mpsc;

    #[derive(Debug, thiserror::Error)]
    #[error("start")]
    pub(crate) struct StartError;

    #[derive(Debug, thiserror::Error)]
    #[error("the tap device is gone")]
    pub(crate) struct RunError;

    #[derive(Clone, Debug)]
    pub(crate) struct Handle(mpsc::Sender<()>);

    impl Handle {
        pub(crate) fn shutdown(&self) {
            let _ = self.0.send(());
        }
    }

    #[derive(Debug)]
    pub(crate) struct Instance(Handle, mpsc::Receiver<()>);

    impl Instance {
        pub(crate) fn handle(&self) -> Handle {
            self.0.clone()
        }
        pub(crate) fn wait(self) -> Result<(), RunError> {
            if std::env::var_os("SHIM_TAP_GONE").is_some() {
                return Err(RunError);
            }
            self.1.recv().map_err(|_| RunError)
        }
    }

    #[derive(Debug)]
    pub(crate) struct Builder(Tap);

    impl Builder {
        pub(crate) fn new(tap: Tap) -> Self {
            Self(tap)
        }
        pub(crate) fn plan(self, _: AddressPlan) -> Self {
            self
        }
        pub(crate) fn mtu(self, _: u16) -> Self {
            self
        }
        pub(crate) fn policy(self, _: Policy) -> Self {
            self
        }
        #[expect(clippy::unnecessary_wraps, reason = "SHIM")]
        pub(crate) fn spawn(self) -> Result<Instance, StartError> {
            let (sender, receiver) = mpsc::channel();
            drop(self.0);
            Ok(Instance(Handle(sender), receiver))
        }
    }
}

//! The usual beginning of a test: a world whose guest is on the network, recorded.

use std::ops::Deref;

use crate::api::Api;
use crate::capture::Capture;
use crate::slirp::Slirp;
use crate::world::World;

/// A [`World`] with the binary under test running in it, and a recording of the guest's `tap0`:
///
/// ```ignore
/// let world = needs!(World::root()).online(&["--mtu=1500"]);
/// ```
///
/// The fields are dropped in this order: the recording ends first, then the binary, then the world.
#[derive(Debug)]
pub struct Online {
    /// The recording. Its file is kept when the test fails.
    pub capture: Capture,
    /// The running binary.
    pub slirp: Slirp,
    world: World,
}

impl World {
    /// Starts the binary with `--configure` and `options`, then the recording.
    ///
    /// # Panics
    /// When one of them does not start.
    pub fn online(self, options: &[&str]) -> Online {
        let slirp = self.slirp().options(options).start();
        let capture = self.capture();
        Online { capture, slirp, world: self }
    }

    /// The same with `--enable-ipv6`. The recording begins once the guest has made itself an
    /// address.
    ///
    /// # Panics
    /// When it gets none, or something does not start.
    pub fn online_with_ipv6(self, options: &[&str]) -> Online {
        let slirp = self.slirp().options(&["--enable-ipv6"]).options(options).start();
        self.wait_for_ipv6("fd00:");
        let capture = self.capture();
        Online { capture, slirp, world: self }
    }

    /// The same with an API socket.
    ///
    /// # Panics
    /// When something does not start.
    pub fn online_with_api(self, options: &[&str]) -> (Online, Api) {
        let api = Api::new(&self);
        let option = api.option();
        (self.online(&[&[option.as_str()], options].concat()), api)
    }
}

impl Deref for Online {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

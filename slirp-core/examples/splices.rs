//! A confined program that joins the loopback interfaces of the host and of a container.
//!
//! `splices PID` gives the process PID, which has a network namespace of its own, a network with
//! the address 10.0.2.100, says `ready`, and runs until its standard input ends. Then these lead to
//! each other:
//!
//! | on the host's loopback | in the container |
//! | --- | --- |
//! | TCP port 8080, UDP port 5300 | the same ports at 10.0.2.100 |
//! | TCP ports 7000 to 7009, as far as they are in use in the container | the same ports |
//! | TCP port 9001, UDP port 5301 | TCP port 900 and UDP port 5301 of its loopback |
//! | TCP ports 7010 to 7019, as far as they are in use | the same ports of its loopback |

#![expect(clippy::disallowed_methods, reason = "a program has arguments and standard streams")]
#![expect(clippy::print_stdout, reason = "somebody waits for it")]

use std::error::Error;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use slirp_core::instance::{Builder, Forward, ForwardProtocol, HostPorts, OpenForwards, Splices};
use slirp_core::launch::{Confinement, Prepared, raise_descriptor_limit};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::SlirpNetwork;
use slirp_core::sandbox::Sandbox;

fn main() -> Result<(), Box<dyn Error>> {
    let pid = std::env::args().nth(1).ok_or("usage: splices PID")?.parse()?;
    raise_descriptor_limit();
    let plan = SlirpNetwork::default();
    let target = NamespaceTarget::of_pid(pid)?;
    let configure = Some(Configuration::for_plan(&plan, 1500));
    let tap = open_tap(&target, &TapRequest { name: "tap0".to_owned(), configure })?;

    let (tcp, udp) = (ForwardProtocol::Tcp, ForwardProtocol::Udp);
    let to_guest = |protocol, port| {
        let guest = SocketAddr::from((plan.recommended_guest(), port));
        Forward::everywhere(protocol, port, guest)
    };
    let to_host = |protocol, guest, host| HostPorts {
        protocol,
        guest,
        host,
        ports: 1,
        is_weak: false,
        is_scanned: false,
    };
    let guest: Ipv4Addr = plan.recommended_guest();
    let splices = Splices::new(target.network().try_clone_to_owned()?)
        .guest(Some(guest), None)
        .scanned([Forward { ports: 10, ..to_guest(tcp, 7000) }])
        .to_host([
            to_host(tcp, 900, 9001),
            to_host(udp, 5301, 5301),
            HostPorts { ports: 10, is_scanned: true, ..to_host(tcp, 7010, 7010) },
        ]);
    let opened = OpenForwards::open(&[to_guest(tcp, 8080), to_guest(udp, 5300)], plan)?;
    let builder = Builder::new(tap).plan(plan).forwards(opened).splices(splices);

    // From here on the process reaches nothing but its sockets.
    let sandbox = Sandbox::new().resolv_conf(None).user_namespace(target.into_user_namespace());
    let confinement = Confinement::none().sandbox(sandbox).filter([]);
    let network = Prepared::new(builder).confine(confinement)?.start()?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    network.stop(Duration::from_secs(5)).ok_or("it does not end")??;
    Ok(())
}

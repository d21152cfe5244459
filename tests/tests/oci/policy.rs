//! Egress policies by annotation and by the hook's arguments, under a real runtime.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::json;
use slirp_tests::*;

const PORT: u16 = 8080;

/// Notes the addresses of the remote at which a container has arrived.
fn noting(oci: &Oci, arrived: &Arc<Mutex<Vec<SocketAddr>>>) -> Vec<TcpServer> {
    let serve = |address| {
        let arrived = Arc::clone(arrived);
        TcpServer::start(&oci.session.world.remote, (address, PORT).into(), move |stream| {
            let at = stream.local_addr().expect("it is connected");
            arrived.lock().expect("no other thread has failed").push(at);
        })
    };
    [REMOTE, FAR].map(serve).into()
}

/// Whether the container reaches the remote and the far one.
fn reached(oci: &Oci, id: &str, arrived: &Mutex<Vec<SocketAddr>>) -> [bool; 2] {
    arrived.lock().expect("no other thread has failed").clear();
    [REMOTE, FAR].map(|address| {
        let words = ["exec", id, "nc", "-w", "20", &address.to_string(), &PORT.to_string()];
        let is_connected = oci.call(&words).status.success();
        let arrived = arrived.lock().expect("no other thread has failed");
        let has_arrived = arrived.iter().any(|at| at.ip() == address);
        assert_eq!(is_connected, has_arrived, "{address}: {arrived:?}");
        has_arrived
    })
}

fn setup(arguments: &[&str], annotation: &str) -> Setup {
    let arguments = ["slirp-oci-hook"].iter().chain(arguments).map(|word| (*word).to_owned());
    Setup {
        arguments: arguments.collect(),
        annotations: json!({ "org.slirp.policy": annotation }),
        ..Setup::default()
    }
}

#[test]
fn annotation_says_where_a_container_may_go() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    let arrived = Arc::default();
    let _servers = noting(&oci, &arrived);
    oci.run("some", &setup(&[], &format!("allow {REMOTE}; allow dns:any\n# more"))).unwrap();
    assert_eq!(reached(&oci, "some", &arrived), [true, false]);
    oci.run("none", &setup(&[], "")).unwrap();
    assert_eq!(reached(&oci, "none", &arrived), [false, false]);
    for id in ["some", "none"] {
        oci.delete(id);
    }
    assert!(oci.is_clean());
}

#[test]
fn author_of_a_container_narrows_the_operators_policy_and_cannot_widen_it() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    let arrived = Arc::default();
    let _servers = noting(&oci, &arrived);
    let file = oci.session.world.folder().join("policy");
    std::fs::write(&file, format!("allow {REMOTE}\nallow {FAR}\n")).expect("it is writable");
    let by_file = format!("--policy-file={}", file.display());
    oci.run("narrow", &setup(&[&by_file], &format!("deny {FAR}"))).unwrap();
    assert_eq!(reached(&oci, "narrow", &arrived), [true, false]);
    oci.delete("narrow");
    let allowed = format!("--policy=allow {REMOTE}");
    for (annotation, what) in [
        (format!("allow {FAR}"), format!("allow {FAR}")),
        ("allow any".to_owned(), "allow any".to_owned()),
        ("set mode audit".to_owned(), "a setting".to_owned()),
    ] {
        let said = oci.run("wide", &setup(&[&allowed], &annotation)).unwrap_err();
        let told = format!("org.slirp.policy: {what}: the operator has given a policy");
        assert!(said.contains(&told), "{said}");
        // runc leaves no container whose hook has failed.
        wait_until(PATIENCE, "nothing is left behind", || oci.is_clean());
    }
    assert!(arrived.lock().unwrap().iter().all(|at: &SocketAddr| at.ip() == REMOTE));
}

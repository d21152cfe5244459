//! What an operator watches, steers and limits containers by, under a real runtime.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use slirp_tests::*;

fn setup(arguments: &[&str], annotations: serde_json::Value) -> Setup {
    let arguments = ["slirp-oci-hook"].iter().chain(arguments).map(|word| (*word).to_owned());
    Setup { arguments: arguments.collect(), annotations, ..Setup::default() }
}

#[test]
fn arguments_of_the_hook_name_a_log_a_socket_and_rates() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    let path = |name: &str| oci.session.world.folder().join(name);
    let log = format!("--audit-log={}", path("{containerID}.log").display());
    let control = format!("--control-socket={}", path("{containerID}.control").display());
    let arguments = [&log, "--audit=all", &control, "--rate-in=2M"];
    let annotations = json!({ "org.slirp.rate-in": "9M", "org.slirp.rate-out": "1M,burst=5k" });
    oci.run("box", &setup(&arguments, annotations)).unwrap();
    for name in ["box.log", "box.control"] {
        let mode = std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let rates = json!({
        "in": { "bitsPerSecond": 2_000_000, "burst": null },
        "out": { "bitsPerSecond": 1_000_000, "burst": 5_000 },
    });
    assert_eq!(oci.attachments()[0]["rates"], rates);
    oci.delete("box");
    assert!(!path("box.control").exists() && path("box.log").exists());
    assert!(oci.is_clean());
}

#[test]
fn author_of_a_container_opens_no_file_and_no_socket() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    let path = oci.session.world.folder().join("theirs");
    for name in ["audit-log", "control-socket", "metrics"] {
        let key = format!("org.slirp.{name}");
        let said = oci.run("box", &setup(&[], json!({ &key: path }))).unwrap_err();
        assert!(said.contains(&format!("annotation {key} is not known")), "{said}");
        assert!(!path.exists());
        // runc leaves no container whose hook has failed.
        wait_until(PATIENCE, "nothing is left behind", || oci.is_clean());
    }
}

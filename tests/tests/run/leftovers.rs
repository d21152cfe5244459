//! Many runs, and what is left of them: nothing.

use slirp_tests::*;

use crate::scene::Scene;

/// Everything of the host that a run could leave behind.
fn traces(scene: &Scene) -> String {
    assert_eq!(scene.processes(), [0; 0]);
    let folder = scene.folder().display();
    let list = format!(
        "ip -o link | sed 's/ qlen.*//'; cat /proc/self/mounts; ls -lA /etc /dev/net {folder}; \
         cat /etc/resolv.conf; ss -Htulnp"
    );
    scene.host.script(&list)
}

#[test]
fn hundred_in_a_row_and_twenty_at_once_leave_nothing() {
    for scene in needs!(Scene::each()) {
        let before = traces(&scene);
        let row = "i=0; while [ $i -lt 100 ]; do $RUN -- true; i=$((i + 1)); done; echo $i";
        let output = scene.beside(row);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("100\n", ""));
        assert_eq!(traces(&scene), before);
        let script = "ping -c1 -W20 10.0.2.2 >/dev/null";
        let runs: Vec<_> = (0..20).map(|_| scene.start(&[], script)).collect();
        for run in runs {
            let output = run.finish();
            assert!(output.status.success(), "{}", output.stderr);
        }
        assert_eq!(traces(&scene), before);
    }
}

#[test]
fn published_port_is_free_and_the_recording_whole_when_the_run_has_ended() {
    for scene in needs!(Scene::each()) {
        let file = scene.file("run.pcap");
        let pcap = format!("--pcap={file}");
        for _ in 0..5 {
            let script = "ping -c1 -W20 10.0.2.2 >/dev/null";
            scene.inside(&["-p", "18080:80", "--pcap", &file], script);
            let seen = crate::scene::packets(&file);
            assert!(seen.contains("ICMP echo reply"), "{seen}");
            scene.inside(&["--publish=18080:80", &pcap], "true");
        }
    }
}

#[test]
fn what_the_command_leaves_running_loses_its_network_and_holds_nothing_up() {
    for scene in needs!(Scene::each()) {
        let begun = scene.file("left");
        let script = format!("setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > {begun}");
        scene.inside(&[], &script);
        let left: u32 = scene.line_of("left").parse().expect("a number");
        assert!(ProcessFacts(left).is_alive());
        let netns = format!("nsenter --net=/proc/{left}/ns/net ip -o link show tap0 || echo gone");
        assert!(scene.host.script(&netns).contains("gone"));
        crate::scene::send(left, nix::sys::signal::Signal::SIGKILL);
        assert_eq!(scene.processes(), [0; 0]);
    }
}

//! Real clients, allowed and denied: how they end, what they say, and how soon.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use slirp_tests::*;

use crate::scene::*;

const POLICY: &str = "allow .index.example";

/// How a client ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// Everything that it said.
    pub(crate) text: String,
    after: Duration,
}

impl Ended {
    /// Asserts that it has failed at once with this code and this text.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, text: &str) {
        self.assert_failed_within(AT_ONCE, code, text);
    }

    /// The same of a program that itself takes a while to start or to end.
    #[track_caller]
    pub(crate) fn assert_failed_within(&self, limit: Duration, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        assert!(self.text.contains(text), "{}", self.text);
        assert!(self.after < limit, "after {:?}: {}", self.after, self.text);
    }

    #[track_caller]
    pub(crate) fn assert_succeeded(&self, text: &str) {
        assert_eq!(self.code, Some(0), "{}", self.text);
        assert!(self.text.contains(text), "{}", self.text);
    }
}

/// Runs a client, up to three times if it fails late: a busy machine is slow now and then, a client
/// that waits for something is slow each time.
pub(crate) fn run(scene: &Scene, argv: &[&str]) -> Ended {
    let once = || {
        let started_at = Instant::now();
        let output = scene.guest.exec(argv);
        let text = output.stdout + &output.stderr;
        Ended { code: output.status.code(), text, after: started_at.elapsed() }
    };
    let is_late = |ended: &Ended| ended.code != Some(0) && ended.after >= AT_ONCE;
    let mut ended = once();
    for _ in 0..2 {
        if is_late(&ended) {
            ended = once();
        }
    }
    ended
}

/// A server of TLS at index.example and a server of HTTP beside it.
pub(crate) struct Web {
    pub(crate) scene: Scene,
    pub(crate) certificate: String,
    _tls: Background,
    _http: Background,
    pub(crate) root: PathBuf,
}

/// Serves files below the folder that is its argument, over HTTP/1.1.
const HTTP_PROGRAM: &str = "
import functools, http.server, sys
handler = http.server.SimpleHTTPRequestHandler
handler.protocol_version = 'HTTP/1.1'
http.server.ThreadingHTTPServer(('203.0.113.7', 80),
    functools.partial(handler, directory=sys.argv[1])).serve_forever()";

impl Web {
    pub(crate) fn new(world: World, policy: &str) -> Self {
        // Programs of the guest need its own name server, whatever the machine's files say.
        let scene = Scene::with(world, policy, &[], &[]);
        scene.dns.set_address("www.index.example", "203.0.113.7");
        scene.dns.set_address("evil.example", "203.0.113.66");
        let folder = scene.folder().to_str().unwrap().to_owned();
        let root = scene.folder().join("web");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("file"), "the file\n").unwrap();
        scene.remote.script(&format!(
            "cd {folder}
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                -subj /CN=index.example -keyout key.pem -out cert.pem \
                -addext subjectAltName=DNS:index.example,DNS:*.index.example 2>/dev/null"
        ));
        let certificate = format!("{folder}/cert.pem");
        let tls = scene.remote.spawn(&[
            "openssl",
            "s_server",
            "-accept",
            "203.0.113.7:443",
            "-key",
            &format!("{folder}/key.pem"),
            "-cert",
            &certificate,
            "-www",
            "-quiet",
            // Clients offer X25519 first and are asked for another hello.
            "-groups",
            "P-384",
        ]);
        let http =
            scene.remote.spawn(&["/usr/bin/python3", "-c", HTTP_PROGRAM, root.to_str().unwrap()]);
        let listens = || {
            let listening = scene.remote.script("ss -Htln");
            [":443 ", ":80 "].iter().all(|port| listening.contains(port))
        };
        wait_until(PATIENCE, "the servers listen", listens);
        Self { scene, certificate, _tls: tls, _http: http, root }
    }

    /// Asserts that nothing arrived at another address, and no other name at this one.
    pub(crate) fn assert_only_index(&self) {
        self.scene.assert_only(&[INDEX]);
        for packet in self.scene.outside.arrived() {
            let is_told = packet.payload.windows(4).any(|window| window == b"evil");
            assert!(!is_told, "{}", packet.payload.escape_ascii());
        }
    }
}

#[test]
fn curl_and_wget_by_allowed_and_denied_names() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    let (scene, ca) = (&web.scene, &web.certificate[..]);
    let curl = |arguments: &[&str]| {
        run(scene, &[&["curl", "-sS", "--max-time", "30", "--cacert", ca], arguments].concat())
    };
    curl(&["http://index.example/file"]).assert_succeeded("the file");
    curl(&["https://www.index.example/"]).assert_succeeded("s_server");
    curl(&["--http1.1", "https://index.example/"]).assert_succeeded("s_server");
    let two = ["http://index.example/file", "http://www.index.example/file"];
    curl(&two).assert_succeeded("the file\nthe file");
    curl(&["http://evil.example/"]).assert_failed(6, "Could not resolve host: evil.example");
    curl(&["https://evil.example/"]).assert_failed(6, "Could not resolve host");
    curl(&["http://203.0.113.66/"]).assert_failed(7, "Failed to connect");
    curl(&["--http3-only", "https://index.example/"]).assert_failed(2, "");
    // The address is right and the name is not.
    let resolve = ["--resolve", "evil.example:443:203.0.113.7", "https://evil.example/"];
    curl(&resolve).assert_failed(35, "access denied");
    curl(&["-k", "https://203.0.113.7/"]).assert_failed(35, "access denied");
    let fronted = curl(&["--resolve", "evil.example:80:203.0.113.7", "http://evil.example/"]);
    fronted.assert_succeeded("blocked by egress policy: evil.example is not allowed");
    let fronted = curl(&["-f", "-H", "Host: evil.example", "http://index.example/file"]);
    fronted.assert_failed(22, "403");
    let wget = |url: &str| run(scene, &["wget", "-nv", "-O-", "--tries=1", url]);
    if is_installed("wget").is_ok() {
        wget("http://index.example/file").assert_succeeded("the file");
        wget("http://evil.example/").assert_failed(4, "unable to resolve host address");
        wget("http://203.0.113.66/").assert_failed(4, "No route to host");
    }
    let busybox = |url: &str| run(scene, &["busybox", "wget", "-q", "-O-", url]);
    busybox("http://index.example/file").assert_succeeded("the file");
    busybox("http://evil.example/").assert_failed(1, "bad address 'evil.example'");
    busybox("http://203.0.113.66/").assert_failed(1, "No route to host");
    let text = "import urllib.request, sys
try: print(urllib.request.urlopen(sys.argv[1], timeout=30).read())
except Exception as error: sys.exit(str(error))";
    let python = |url: &str| run(scene, &["/usr/bin/python3", "-c", text, url]);
    python("http://index.example/file").assert_succeeded("the file");
    python("http://evil.example/").assert_failed(1, "Name or service not known");
    python("http://203.0.113.66/").assert_failed(1, "No route to host");
    web.assert_only_index();
}

#[test]
fn hellos_of_openssl_in_every_shape() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    let scene = &web.scene;
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    let client = |arguments: &[&str]| {
        let fixed = ["openssl", "s_client", "-connect", "203.0.113.7:443"];
        run(scene, &[&fixed, arguments].concat())
    };
    let shapes: [&[&str]; 7] = [
        &["-tls1_3"],
        // A second hello is asked for.
        &["-tls1_3", "-groups", "X25519:P-384"],
        &["-tls1_2"],
        &["-alpn", "h2,http/1.1"],
        &["-status"],
        &["-no_ticket"],
        &["-max_send_frag", "512", "-split_send_frag", "512"],
    ];
    for shape in shapes {
        client(&[&["-servername", "index.example"], shape].concat()).assert_succeeded("CONNECTED");
        let denied = client(&[&["-servername", "evil.example"], shape].concat());
        assert_ne!(denied.code, Some(0), "{shape:?}: {}", denied.text);
        assert!(denied.text.contains("alert access denied"), "{shape:?}: {}", denied.text);
        assert!(denied.after < AT_ONCE, "{shape:?}: {:?}", denied.after);
        let nameless = client(&[&["-noservername"], shape].concat());
        assert_ne!(nameless.code, Some(0), "{shape:?}: {}", nameless.text);
    }
    web.assert_only_index();
}

#[test]
fn git_clones_from_allowed_names() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    needs!(is_installed("git"));
    let (scene, root) = (&web.scene, web.root.to_str().unwrap());
    scene.host.script(&format!(
        "cd {root}; export GIT_CONFIG_GLOBAL=/dev/null HOME={root}
         git init -q work; cd work
         git -c user.name=a -c user.email=a@index.example commit -q --allow-empty -m first
         git clone -q --bare . ../repo.git; cd ../repo.git; git update-server-info"
    ));
    let clone = |url: &str| {
        let target = format!("{root}/clone");
        let ended = run(
            scene,
            &["env", "GIT_TERMINAL_PROMPT=0", "GIT_SSL_NO_VERIFY=1", "git", "clone", url, &target],
        );
        // The next one needs the place; a clone that failed leaves none.
        let _ = std::fs::remove_dir_all(target);
        ended
    };
    clone("http://www.index.example/repo.git").assert_succeeded("Cloning");
    clone("http://evil.example/repo.git").assert_failed(128, "Could not resolve host");
    clone("https://evil.example/repo.git").assert_failed(128, "Could not resolve host");
    clone("https://203.0.113.7/repo.git").assert_failed(128, "denied");
    clone("http://203.0.113.7/repo.git").assert_failed(128, "403");
    clone("https://203.0.113.66/repo.git").assert_failed(128, "Failed to connect");
    clone("git://index.example/repo.git").assert_failed(128, "No route to host");
    web.assert_only_index();
}

#[test]
fn apt_reads_allowed_mirrors_only() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    needs!(is_installed("apt-get"));
    let scene = &web.scene;
    std::fs::write(web.root.join("Packages"), "").unwrap();
    let folder = scene.folder().join("apt");
    let folder = folder.to_str().unwrap();
    scene.host.script(&format!(
        "mkdir -p {folder}/lists/partial {folder}/cache/archives/partial; chmod -R 0777 {folder}"
    ));
    let update = |mirror: &str| {
        let list = format!("{folder}/sources.list");
        std::fs::write(&list, format!("deb [trusted=yes] http://{mirror}/ ./\n")).unwrap();
        let options = [
            format!("-oDir::Etc::SourceList={list}"),
            "-oDir::Etc::SourceParts=/dev/null".to_owned(),
            format!("-oDir::State::Lists={folder}/lists"),
            format!("-oDir::Cache={folder}/cache"),
            "-oAcquire::Languages=none".to_owned(),
            "-oAcquire::Retries=0".to_owned(),
            "-oAPT::Update::Error-Mode=any".to_owned(),
            "-oAPT::Sandbox::User=root".to_owned(),
        ];
        let mut argv = vec!["env", "-u", "http_proxy", "apt-get", "update"];
        argv.extend(options.iter().map(String::as_str));
        run(scene, &argv)
    };
    update("www.index.example").assert_succeeded("Packages");
    update("evil.example").assert_failed(100, "Could not resolve 'evil.example'");
    update("203.0.113.66").assert_failed(100, "No route to host");
    update("203.0.113.7").assert_failed(100, "403");
    web.assert_only_index();
}

#[test]
fn dnsmasq_before_and_behind_the_gate() {
    let world = needs!(World::root());
    world.remote.script("ip route add local 203.0.113.0/24 dev lo");
    let extra = [
        "--host-record=www.index.example,203.0.113.7",
        "--cname=alias.index.example,www.index.example",
        "--local=/index.example/",
        "--log-queries",
    ];
    let upstream = Dnsmasq::start(&world.remote, "203.0.113.54".parse().unwrap(), &extra);
    let scene = Scene::with(world, POLICY, &["--dns=203.0.113.54"], &[443, 80]);
    scene.dns.set_address("www.index.example", "203.0.113.7");
    // A resolver of the guest's own, which caches.
    let inner = scene.guest.spawn(&[
        "dnsmasq",
        // Stays the user that it is: a container has no other.
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-hosts",
        "--no-resolv",
        "--bind-interfaces",
        "--pid-file=",
        "--listen-address=127.0.0.1",
        "--server=10.0.2.3",
    ]);
    scene.guest.script("printf 'nameserver 127.0.0.1\\n' > /etc/resolv.conf");
    let resolve = |name: &str| {
        run(&scene, &["dig", "+short", "+tries=1", "+time=20", "@127.0.0.1", name, "A"])
    };
    wait_until(PATIENCE, "the inner resolver listens", || {
        scene.guest.script("ss -Huln sport = :53").contains("127.0.0.1")
    });
    resolve("www.index.example").assert_succeeded("203.0.113.7");
    resolve("www.index.example").assert_succeeded("203.0.113.7");
    let denied = run(&scene, &["dig", "+tries=1", "+time=20", "@127.0.0.1", "evil.example", "A"]);
    denied.assert_succeeded("NXDOMAIN");
    // Names above an allowed one stay NODATA, so that no cache cuts the allowed one off.
    let above = run(&scene, &["dig", "+tries=1", "+time=20", "@127.0.0.1", "example", "A"]);
    above.assert_succeeded("NOERROR");
    let hello = crate::hello::hello("www.index.example");
    assert_eq!(scene.exchange((INDEX, 443).into(), &[&hello]), SEEN);
    run(&scene, &["curl", "-sS", "--max-time", "30", "http://www.index.example/"])
        .assert_succeeded("SEEN");
    run(&scene, &["curl", "-sS", "--max-time", "30", "http://evil.example/"])
        .assert_failed(6, "Could not resolve host");
    drop(inner);
    let known = [INDEX, "203.0.113.54".parse().unwrap()];
    scene.assert_only(&known);
    for packet in scene.outside.arrived() {
        assert!(!packet.payload.windows(4).any(|window| window == b"evil"), "{packet:?}");
    }
    drop(upstream);
}

/// The world, where `openssl` is there as well.
pub(crate) fn with_openssl(world: World) -> Result<World, Missing> {
    is_installed("openssl").map(|()| world)
}

//! Clients of other languages and their package managers, allowed and denied.

use std::fs;
use std::time::Duration;

use slirp_tests::*;

use crate::clients::{Ended, Web, run, with_openssl};

const POLICY: &str = "allow .index.example";
/// The start of a run time or a package manager takes its own while on a busy machine. All of them
/// wait for longer if nobody answers.
const SOON: Duration = Duration::from_secs(20);

/// Runs a client that does not know of any proxy of this machine.
fn run_directly(web: &Web, argv: &[&str]) -> Ended {
    let proxies = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let mut all = vec!["env"];
    all.extend(proxies.into_iter().flat_map(|proxy| ["-u", proxy]));
    run(&web.scene, &[&all, argv].concat())
}

const GO_PROGRAM: &str = r#"package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
)

func main() {
	insecure := &tls.Config{InsecureSkipVerify: true}
	transport := &http.Transport{TLSClientConfig: insecure, ForceAttemptHTTP2: true}
	client := http.Client{Transport: transport}
	response, err := client.Get(os.Args[1])
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	io.Copy(os.Stdout, response.Body)
}
"#;

#[test]
fn go_with_its_own_resolver() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    needs!(is_installed("go"));
    let folder = web.scene.folder().to_str().unwrap();
    fs::write(format!("{folder}/get.go"), GO_PROGRAM).unwrap();
    // Without cgo the program asks the name server by itself.
    let build = format!("cd {folder}; CGO_ENABLED=0 GO111MODULE=off exec go build get.go");
    // The first build makes the whole library, which may take minutes on a busy machine.
    assert!(web.scene.host.command(&["sh", "-c", &build]).status().unwrap().success());
    let program = format!("{folder}/get");
    let get = |url: &str| run_directly(&web, &[&program, url]);
    get("http://index.example/file").assert_succeeded("the file");
    get("https://www.index.example/").assert_succeeded("s_server");
    get("http://evil.example/").assert_failed(1, "no such host");
    get("https://evil.example/").assert_failed(1, "no such host");
    get("http://203.0.113.66/").assert_failed(1, "no route to host");
    get("https://203.0.113.7/").assert_failed(1, "access denied");
    get("http://203.0.113.7/").assert_succeeded("blocked by egress policy");
    web.assert_only_index();
}

const JAVA_PROGRAM: &str = r#"
import java.net.*;
import java.security.cert.X509Certificate;
import javax.net.ssl.*;

public class Get {
    public static void main(String[] arguments) throws Exception {
        TrustManager all = new X509TrustManager() {
            public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
            public void checkClientTrusted(X509Certificate[] chain, String type) {}
            public void checkServerTrusted(X509Certificate[] chain, String type) {}
        };
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, new TrustManager[] { all }, null);
        HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
        HttpsURLConnection.setDefaultHostnameVerifier((name, session) -> true);
        System.out.write(new URL(arguments[0]).openStream().readAllBytes());
        System.out.flush();
    }
}
"#;

#[test]
fn java_by_its_url_connections() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    needs!(is_installed("javac"));
    let folder = web.scene.folder().to_str().unwrap();
    fs::write(format!("{folder}/Get.java"), JAVA_PROGRAM).unwrap();
    web.scene.host.script(&format!("cd {folder}; javac Get.java 2>/dev/null"));
    let get = |url: &str| run_directly(&web, &["java", "-cp", folder, "Get", url]);
    let denied = |url: &str, text: &str| get(url).assert_failed_within(SOON, 1, text);
    get("http://index.example/file").assert_succeeded("the file");
    get("https://www.index.example/").assert_succeeded("s_server");
    denied("http://evil.example/", "UnknownHostException: evil.example");
    denied("http://203.0.113.66/", "No route to host");
    denied("https://203.0.113.7/", "access_denied");
    denied("http://203.0.113.7/", "response code: 403");
    web.assert_only_index();
}

#[test]
fn node_and_npm_against_a_local_registry() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    needs!(is_installed("npm"));
    fs::write(
        web.root.join("left"),
        r#"{"name":"left","dist-tags":{"latest":"1.2.3"},
            "versions":{"1.2.3":{"name":"left","version":"1.2.3","dist":{"tarball":""}}}}"#,
    )
    .unwrap();
    let cache = format!("--cache={}/npm", web.scene.folder().display());
    let view = |registry: &str| {
        let registry = format!("--registry={registry}");
        let quiet = ["--fetch-retries=0", "--no-update-notifier", "--userconfig=/dev/null"];
        let argv = [&["npm", "view", "left", "version", &registry, &cache][..], &quiet].concat();
        run_directly(&web, &argv)
    };
    let denied = |registry: &str, text: &str| {
        let ended = view(registry);
        ended.assert_failed_within(SOON, 1, text);
    };
    view("http://index.example/").assert_succeeded("1.2.3");
    denied("http://evil.example/", "ENOTFOUND");
    denied("https://evil.example/", "ENOTFOUND");
    denied("http://203.0.113.7/", "403");
    let text = "fetch(process.argv[1]).then(r => r.text()).then(console.log)
        .catch(error => { console.error(error.cause.code, error.cause.message); process.exit(1) })";
    let fetch = |url: &str| {
        run_directly(&web, &["env", "NODE_TLS_REJECT_UNAUTHORIZED=0", "node", "-e", text, url])
    };
    fetch("http://index.example/file").assert_succeeded("the file");
    fetch("https://www.index.example/").assert_succeeded("s_server");
    fetch("http://evil.example/").assert_failed_within(SOON, 1, "ENOTFOUND");
    fetch("http://203.0.113.66/").assert_failed_within(SOON, 1, "EHOSTUNREACH");
    fetch("https://203.0.113.7/").assert_failed_within(SOON, 1, "access denied");
    web.assert_only_index();
}

/// Writes a wheel without contents into the folder that is its argument.
const WHEEL_PROGRAM: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + '/left-1.0-py3-none-any.whl', 'w') as wheel:
    info = 'left-1.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: left\\nVersion: 1.0\\n')
    about = 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'
    wheel.writestr(info + 'WHEEL', about)
    wheel.writestr(info + 'RECORD', '')";

#[test]
fn pip_against_a_local_index() {
    let web = Web::new(needs!(World::root().and_then(with_openssl)), POLICY);
    needs!(is_installed("pip"));
    let package = web.root.join("simple/left");
    fs::create_dir_all(&package).unwrap();
    let made = web.scene.host.exec(&["python3", "-c", WHEEL_PROGRAM, package.to_str().unwrap()]);
    assert!(made.status.success(), "{}", made.stderr);
    let target = format!("{}/pip", web.scene.folder().display());
    let download = |host: &str| {
        let index = format!("http://{host}/simple/");
        let argv = [
            "pip",
            "--isolated",
            "--disable-pip-version-check",
            "download",
            "--no-deps",
            "--no-cache-dir",
            "--retries=0",
            "--dest",
            &target,
            "--index-url",
            &index,
            "--trusted-host",
            host,
            "left",
        ];
        run_directly(&web, &argv)
    };
    let denied = |host: &str| {
        // The reason is not shown, but pip does not wait for anything either.
        download(host).assert_failed_within(SOON, 1, "No matching distribution found for left");
    };
    download("index.example").assert_succeeded("Successfully downloaded left");
    denied("evil.example");
    denied("203.0.113.66");
    denied("203.0.113.7");
    web.assert_only_index();
}

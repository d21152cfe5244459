//! Seeds of the target `http_head`: requests as no program on a desk writes them.
//!
//! What real programs write is kept beside them, named after the program and its version.

/// The names and inputs of the seeds.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let good = "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n";
    let evil = good.replace("good", "evil");
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: good.example\r\n{fields}\r\n\r\n");
    let chunked = post("Transfer-Encoding: chunked");
    let texts = [
        ("pipelined", good.repeat(3)),
        ("second_host_is_another", format!("{good}{evil}")),
        ("behind_a_body", format!("{}{evil}{evil}", post("Content-Length: 38"))),
        ("behind_chunks", format!("{chunked}26\r\n{evil}\r\n0\r\n\r\n{evil}")),
        ("trailer", format!("{chunked}1\r\nx\r\n00\r\nX-Sum: 1\r\nY:\r\n\r\n{good}")),
        ("trailer_with_host", format!("{chunked}0\r\nHost: evil.example\r\n\r\n{good}")),
        ("chunk_extension", format!("{chunked}1;a=b\r\nx\r\n0\r\n\r\n")),
        ("chunk_is_longer", format!("{chunked}1\r\nxy\r\n0\r\n\r\n")),
        ("chunk_is_huge", format!("{chunked}fffffffffffffff\r\nx")),
        ("two_lengths", post("Content-Length: 5\r\nContent-Length: 5")),
        ("length_and_chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked")),
        ("other_coding", post("Transfer-Encoding: gzip, chunked")),
        ("two_hosts", good.replace("\r\n\r\n", "\r\nHost: evil.example\r\n\r\n")),
        ("no_host", "GET / HTTP/1.0\r\n\r\n".into()),
        ("host_with_port", good.replace("good.example", "GOOD.example.:80")),
        ("host_with_other_port", good.replace("good.example", "good.example:8080")),
        ("host_is_ipv4", good.replace("good.example", "203.0.113.7")),
        ("host_is_ipv6", good.replace("good.example", "[2001:db8::1]:80")),
        ("absolute", good.replace("/ ", "http://Good.Example:80/x ")),
        ("absolute_differs", good.replace("/ ", "http://evil.example/ ")),
        ("absolute_with_user", good.replace("/ ", "http://good.example@evil.example/ ")),
        ("asterisk", good.replace("GET /", "OPTIONS *")),
        ("folded", good.replace("\r\n\r\n", "\r\nX: y\r\n z\r\n\r\n")),
        ("bare_lf", good.replace("\r\n", "\n")),
        ("bare_cr", good.replace("\r\n", "\r")),
        ("nul", good.replace("good", "g\0od")),
        ("space_before_colon", good.replace("Host:", "Host :")),
        ("empty_line_in_front", format!("\r\n{good}")),
        ("http_0_9", "GET /\r\n".into()),
        ("connect", "CONNECT good.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\n".into()),
        ("upgrade", good.replace("\r\n\r\n", "\r\nUpgrade: websocket\r\n\r\n")),
        (
            "upgrade_to_http_2",
            good.replace("\r\n\r\n", "\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n"),
        ),
        ("preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
        ("many_lines", good.replace("\r\n\r\n", &format!("{}\r\n", "\r\nX: y".repeat(127)))),
        ("tabs", "GET\t/\tHTTP/1.1\r\nHost: good.example\r\n\r\n".into()),
        ("smtp", "EHLO client\r\n".into()),
        ("ssh", "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".into()),
    ];
    texts.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}

//! Seeds of the target `rule`.

use slirp_fuzz::rule::{ALLOW, ANNOTATION, FILE, LIST};

use crate::Seed;

/// The door `--deny`.
const DENY: u8 = ALLOW + 2;

pub(crate) fn seeds() -> Vec<Seed> {
    let seeds = [
        ("empty", FILE, ""),
        (
            "names",
            FILE,
            "# packages\nallow .index.example\nallow files.example # and no other\n\n\
             allow git.example:22\nallow *.corp.example private=yes\nallow 10.9.8.7:5432\n\
             deny admin.corp.example\nask api.example\n",
        ),
        ("deny_list", FILE, "allow any\ndeny private\ndeny any:25\r\ndeny *.zip\r\n"),
        (
            "settings",
            FILE,
            "set mode audit\nset ech deny\nset dns-redirect no\nset ask-timeout 30\n\
             set placeholder 198.19.192.0/18\nask any\n",
        ),
        (
            "addresses",
            FILE,
            "allow 203.0.113.7\nallow tcp:10.0.0.0/8:22,80-90,443\nallow [2001:db8::/32]:443\n\
             allow 2001:db8::1\nallow udp:[64:ff9b::10.0.0.1]:53\ndeny 0.0.0.0/1\n",
        ),
        (
            "sets",
            FILE,
            "allow host-loopback:11434\nallow gateway\nallow host\ndeny private\nallow link-local\n\
             deny metadata\nallow udp:multicast:5353\nallow internet:443\nallow icmp:any\n",
        ),
        ("lookups", FILE, "allow dns\nallow dns:any\ndeny dns:*.example.com\nallow any:443\n"),
        ("inbound", FILE, "allow in 203.0.113.0/24:8080\ndeny in any\nallow in tcp:private:*\n"),
        (
            "options",
            FILE,
            "allow *.test:* verify=off private=yes wide=yes log=no note=\"a # b; c\" # d\n\
             deny any note=\"\"\n",
        ),
        ("case", FILE, "ALLOW\tTCP:Example.COM.:443 VERIFY=Off\nDeny IN Any\nSET Mode Enforce"),
        ("looks_like_a_port", FILE, "allow 2001:db8::1:443\nallow 1:2:3:4:5:6:7:8:443\n"),
        ("option", ALLOW, "tcp:*.example.com:443 note=\"x\""),
        ("option_default", DENY, "any"),
        ("list", LIST, "allow a.example\nset mode enforce\n\ndeny any"),
        ("annotation", ANNOTATION, "deny a.example note=\"x;y\"; ask b.example # z; allow any\n;"),
        (
            "errors",
            FILE,
            "permit a.example\nallow\nallow 10.0.0.1/8\nallow 10.0.0.0/33\nallow 0.0.0.0/0\n\
             allow *\nallow *example.com\nallow *.com\nallow https://a.example/x\n\
             allow a.example:0\nallow a.example:90-80\nallow m\u{fc}nchen.example\n\
             allow a..example\nallow 1.2.3\nallow icmp:a.example:80\nallow in a.example\n\
             ask dns\ndeny privat\n",
        ),
        ("conflict", FILE, "allow any\ndeny any\nset mode audit\nset mode enforce"),
        ("control_characters", FILE, "allow \u{1b}[31m.example\u{0}\nallow \"\\\".example\n"),
    ];
    seeds.map(|(name, door, text)| (name, door, text.as_bytes().to_vec())).into()
}

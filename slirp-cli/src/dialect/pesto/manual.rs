//! What pesto(1) says about each option, in mdoc(7). A test makes the page's list of options of it.

use super::table::OptionId;

/// The option's entry below its names.
pub(super) const fn manual(option: OptionId) -> &'static str {
    match option {
        OptionId::Add => {
            "\
Add the ports of the options that follow.
A port that another rule has already is refused.
Default: ports are added."
        }
        OptionId::Delete => {
            "\
Delete the ports of the options that follow.
The rule has to be there as it was given: that of a range is the whole range.
Default: ports are added."
        }
        OptionId::Clear => {
            "\
Delete all ports of a table:
.Cm HOST
has those of
.Fl t
and
.Fl u ,
.Cm SPLICE
those of
.Fl T
and
.Fl U .
Default: none."
        }
        OptionId::TcpPorts | OptionId::UdpPorts => {
            "\
Ports of the host that lead to the guest, as the option of
.Xr pasta 1
has them.
Default: none."
        }
        OptionId::TcpNs | OptionId::UdpNs => {
            "\
Ports of the guest's loopback that lead to the host's, as the option of
.Xr pasta 1
has them.
Default: none."
        }
        OptionId::Show => {
            "\
Print the rules in force, after the change if there is one.
Without any other option they are printed anyway.
Default: nothing is printed."
        }
        OptionId::Debug => {
            "\
Accepted, without an effect.
Default: off."
        }
        OptionId::Help => "Print the options and end.",
        OptionId::Version => "Print the version and end.",
    }
}

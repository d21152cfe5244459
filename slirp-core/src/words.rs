//! Enums of which each variant has a word.
//!
//! Owns the macro that defines them. The words are stable: they stand in log lines, in audit logs
//! and in the labels of metrics. Counters are arrays with one place for each variant.

/// Defines an enum of variants without values, with `ALL` and `as_str`.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident:
        $( $(#[$doc:meta])* $name:ident => $text:literal, )+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum $enum {
            $( $(#[$doc])* $name, )+
        }

        impl $enum {
            /// Every value, in the order of the counters.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }
        }
    };
}

pub(crate) use words;

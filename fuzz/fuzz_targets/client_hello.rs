//! Coverage-guided driver of [`slirp_fuzz::client_hello`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| slirp_fuzz::client_hello(data));

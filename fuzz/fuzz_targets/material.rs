//! Keys, certificates, stores and lists: whatever a file holds, no reader panics, hangs or eats memory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| onbytes::__fuzz_material(data));

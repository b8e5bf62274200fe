//! Model lists, ours and LiteLLM's: no input panics, faults have their place, and what was read bounds its own
//! costs.
//!
//! Input: a list, read as either form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::llm::catalogue::Catalogue;
use tollgate::llm::dialect::Usage;
use tollgate::llm::provider::ProviderKind;

fuzz_target!(|input: &[u8]| {
    let mut catalogue = Catalogue::default();
    let _ = catalogue.add_litellm(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    for fault in catalogue.add_own(text).err().into_iter().flatten() {
        assert!(fault.offset <= text.len() && !fault.message.is_empty(), "{fault:?}");
    }
    for name in text.split(['"', ' ', '\n']) {
        let Some(price) = catalogue.model(ProviderKind::OpenAi, name).price else { continue };
        let usage = Usage { input: Some(1_000), cache_read: Some(300), output: Some(70), ..Usage::default() };
        assert!(price.cost(&usage) <= price.bound(1_000, 70), "{name}: {price:?}");
    }
});

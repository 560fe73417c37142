//! Options by which the same plan does not give the same kernel.

use super::Config;
use super::file_settings::{GENERATED_KEY, is_in_token};

/// Options that make every build another one, and why.
const RANDOM: [(&str, &str); 6] = [
    (
        "MODULE_SIG",
        "a key that is made for this build signs the modules, and its certificate is in the kernel",
    ),
    ("RANDSTRUCT", "a random seed shuffles structures"),
    ("RANDSTRUCT_FULL", "a random seed shuffles structures"),
    ("RANDSTRUCT_PERFORMANCE", "a random seed shuffles structures"),
    ("GCC_PLUGIN_RANDSTRUCT", "a random seed shuffles structures"),
    ("GCC_PLUGIN_LATENT_ENTROPY", "random numbers are compiled in"),
];

/// The options of `config` by which no two builds are equal, and why; each reason once.
pub fn random_settings(config: &Config) -> Vec<(&'static str, &'static str)> {
    let has_own_key = config.text("MODULE_SIG_KEY").is_some_and(|key| key != GENERATED_KEY);
    let applies = |symbol: &str| config.value(symbol) == "y" && !(symbol == "MODULE_SIG" && has_own_key);
    let mut options: Vec<(&str, &str)> = RANDOM.into_iter().filter(|(symbol, _)| applies(symbol)).collect();
    options.dedup_by_key(|(_, why)| *why);
    options
}

/// The same as sentences.
pub fn irreproducible_settings(config: &Config) -> Vec<String> {
    let sentence = |(symbol, why): (&str, &str)| {
        let hint = if symbol == "MODULE_SIG" { "; set CONFIG_MODULE_SIG_KEY to your own key" } else { "" };
        format!("CONFIG_{symbol}: {why}: no two builds are equal{hint}")
    };
    random_settings(config).into_iter().map(sentence).collect()
}

/// What in no plan is, and what this config makes depends on; one sentence for each.
pub fn host_dependent_settings(config: &Config) -> Vec<String> {
    let is_in_token = config.text("MODULE_SIG_KEY").is_some_and(|key| is_in_token(&key));
    let is_native = config.value("X86_NATIVE_CPU") == "y";
    let token = "CONFIG_MODULE_SIG_KEY: the key is in a hardware token, and may differ in the next build";
    let native = "CONFIG_X86_NATIVE_CPU: the code is for the CPU of the machine that compiles it";
    [(is_in_token, token), (is_native, native)]
        .into_iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, sentence)| sentence.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_random_is_said_once() {
        let reasons = |text: &str| irreproducible_settings(&Config::parse(text));
        assert_eq!(reasons("CONFIG_RANDSTRUCT=y\nCONFIG_RANDSTRUCT_FULL=y\n").len(), 1);
        assert_eq!(reasons("CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_KEY=\"/k.pem\"\n"), [""; 0]);
        let own = "CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_KEY=\"certs/signing_key.pem\"\n";
        assert!(reasons(own)[0].starts_with("CONFIG_MODULE_SIG: "));
        assert_eq!(
            host_dependent_settings(&Config::parse("CONFIG_MODULE_SIG_KEY=\"pkcs11:object=x\"\n")).len(),
            1
        );
    }
}

use super::*;

fn of(answer: &str) -> Dialect {
    Dialect::of(answer).unwrap_or_else(|failure| panic!("{answer}: {failure}"))
}

#[test]
fn answers_of_all_ages_are_read() {
    for (answer, version) in [
        ("3.9.1\n", "3.9.1"),
        ("Kong version: 0.8.3\n", "0.8.3"),
        ("Kong version: 0.5.4", "0.5.4"),
        ("Kong Enterprise 2.8.1.4\n", "2.8.1"),
        ("3.4.3.1-enterprise-edition\n", "3.4.3"),
        ("2.8", "2.8.0"),
        ("3.10.0-rc.1", "3.10.0"),
        ("0.14.1", "0.14.1"),
    ] {
        assert_eq!(of(answer).version.to_string(), version, "{answer}");
    }
}

#[test]
fn what_cannot_be_driven_is_refused() {
    for (answer, code) in [
        ("", "KONG_VERSION_UNKNOWN"),
        ("Kong", "KONG_VERSION_UNKNOWN"),
        ("3", "KONG_VERSION_UNKNOWN"),
        ("v3x", "KONG_VERSION_UNKNOWN"),
        ("4.0.0", "KONG_VERSION_UNKNOWN"),
        ("99999999.1.1", "KONG_VERSION_UNKNOWN"),
        ("Kong Enterprise Edition 0.36-2", "KONG_VERSION_UNSUPPORTED"),
        ("0.9.0", "KONG_VERSION_UNSUPPORTED"),
        ("0.9.6", "KONG_VERSION_UNSUPPORTED"),
        ("Kong version: 0.4.2", "KONG_VERSION_UNSUPPORTED"),
    ] {
        assert_eq!(Dialect::of(answer).map_err(|f| f.code), Err(code.into()), "{answer}");
    }
}

#[test]
fn every_age_has_its_row() {
    for (answer, key, takes, trials, armed) in [
        ("0.5.4", "plugins_available", Takes::Restart, Trials::None, None),
        ("0.8.3", "custom_plugins", Takes::Restart, Trials::None, None),
        ("0.9.9", "custom_plugins", Takes::Restart, Trials::None, Some("kong.conf")),
        ("0.10.4", "custom_plugins", Takes::Restart, Trials::None, Some(".kong_env")),
        ("0.13.1", "custom_plugins", Takes::Reload, Trials::BootOnDatabase, Some(".kong_env")),
        ("0.14.1", "plugins", Takes::Reload, Trials::BootOnDatabase, Some(".kong_env")),
        ("1.0.3", "plugins", Takes::Reload, Trials::BootOnDatabase, Some(".kong_env")),
        ("1.5.1", "plugins", Takes::Reload, Trials::ParseAndBoot, Some(".kong_env")),
        ("3.9.1", "plugins", Takes::Reload, Trials::ParseAndBoot, Some(".kong_env")),
    ] {
        let dialect = of(answer);
        assert_eq!(dialect.key(), key, "{answer}");
        assert_eq!((dialect.takes, dialect.trials, dialect.armed), (takes, trials, armed), "{answer}");
    }
}

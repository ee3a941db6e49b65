//! Plugins that do not load: a reload exits 0 and is refused, check and prepare see nothing, restart and start leave
//! the node down, `config parse` in a scratch prefix refuses them beforehand.

use crate::node::{Datastore, GOLDEN_SCHEMA, Node};

/// A plugin by its modules and how it fails.
struct Broken {
    name: &'static str,
    modules: &'static [(&'static str, &'static str)],
    /// First lines of what follows `init_by_lua error: `, with `<STRATEGY>` for the datastore's name.
    refusal: &'static str,
    /// What ends the traceback before Kong's own init frames; empty if nothing but those.
    frames: &'static str,
    /// First lines of what `config parse` says.
    parse: &'static str,
}

const GOOD: &str = "return { PRIORITY = 10, VERSION = \"1.0.0\" }\n";
const NIL_KONG: &str = "attempt to index upvalue 'kong' (a nil value)\n";
const LOADING: &str = "<KONG_LUA>/kong/init.lua:708: error loading plugin schemas: on plugin 'broken': ";

const BROKEN: &[Broken] = &[
    Broken {
        name: "absent",
        modules: &[],
        refusal: "broken plugin is enabled but not installed;\nno plugin found\nstack traceback:\n\t[C]: in function 'assert'\n",
        frames: "",
        parse: NIL_KONG,
    },
    Broken {
        name: "schema missing",
        modules: &[("handler", GOOD)],
        refusal: "no configuration schema found for plugin: broken\nstack traceback:\n\t[C]: in function 'assert'\n",
        frames: "",
        parse: NIL_KONG,
    },
    Broken {
        name: "handler missing",
        modules: &[("schema", GOLDEN_SCHEMA)],
        refusal: "broken plugin is enabled but not installed;\nno plugin found\nstack traceback:\n",
        frames: "",
        parse: NIL_KONG,
    },
    Broken {
        name: "handler syntax error",
        modules: &[
            ("handler", "local H = {}\nfunction H:access(conf\nreturn H\n"),
            ("schema", GOLDEN_SCHEMA),
        ],
        refusal: "<KONG_LUA>/kong/tools/module.lua:29: error loading module 'kong.plugins.broken.handler':\n\
                  error loading module 'kong.plugins.broken.handler' from file '<LUA_PATH>/kong/plugins/broken/handler.lua':\n\
                  \t<LUA_PATH>/kong/plugins/broken/handler.lua:3: ')' expected near 'return'\nstack traceback:\n\t[C]: at 0x",
        frames: "\t[C]: in function 'error'\n\t<KONG_LUA>/kong/tools/module.lua:29: in function 'load_module_if_exists'\n\
                 \t<KONG_LUA>/kong/db/dao/plugins.lua:163: in function 'load_plugin_handler'\n\
                 \t<KONG_LUA>/kong/db/dao/plugins.lua:276: in function 'load_plugin'\n\
                 \t<KONG_LUA>/kong/db/dao/plugins.lua:328: in function 'load_plugin_schemas'\n",
        parse: "error loading module 'kong.plugins.broken.handler':\nerror loading module 'kong.plugins.broken.handler' \
                from file '<LUA_PATH>/kong/plugins/broken/handler.lua':\n\
                \t<LUA_PATH>/kong/plugins/broken/handler.lua:3: ')' expected near 'return'\nstack traceback:\n",
    },
    Broken {
        name: "missing dependency",
        modules: &[
            ("handler", "local x = require \"no.such.module\"\nreturn {}\n"),
            ("schema", GOLDEN_SCHEMA),
        ],
        refusal: "<KONG_LUA>/kong/tools/module.lua:29: error loading module 'kong.plugins.broken.handler':\n\
                  <LUA_PATH>/kong/plugins/broken/handler.lua:1: module 'no.such.module' not found:\n\
                  \tno field package.preload['no.such.module']\n\tno file '<LUA_PATH>/no/such/module.lua'\n\
                  \tno file '<OPENRESTY>/site/lualib/no/such/module.ljbc'\n",
        frames: "\t[C]: in function 'require'\n\t<LUA_PATH>/kong/plugins/broken/handler.lua:1: in main chunk\n\t[C]: at 0x",
        parse: "error loading module 'kong.plugins.broken.handler':\n\
                <LUA_PATH>/kong/plugins/broken/handler.lua:1: module 'no.such.module' not found:\n\
                \tno field package.preload['no.such.module']\n\tno file '<LUA_PATH>/no/such/module.lua'\n\
                \tno file './no/such/module.lua'\n\tno file './no/such/module/init.lua'\n",
    },
    Broken {
        name: "schema syntax error",
        modules: &[("handler", GOOD), ("schema", "return { name = \"broken\", fields = {\n")],
        refusal: "<KONG_LUA>/kong/tools/module.lua:29: error loading module 'kong.plugins.broken.schema':\n\
                  error loading module 'kong.plugins.broken.schema' from file '<LUA_PATH>/kong/plugins/broken/schema.lua':\n\
                  \t<LUA_PATH>/kong/plugins/broken/schema.lua:2: unexpected symbol near '<eof>'\nstack traceback:\n",
        frames: "\t<KONG_LUA>/kong/db/schema/plugin_loader.lua:18: in function 'load_subschema'\n\
                 \t<KONG_LUA>/kong/db/dao/plugins.lua:281: in function 'load_plugin'\n",
        parse: "error loading module 'kong.plugins.broken.schema':\nerror loading module 'kong.plugins.broken.schema' from \
                file '<LUA_PATH>/kong/plugins/broken/schema.lua':\n",
    },
    Broken {
        name: "schema invalid",
        modules: &[
            ("handler", GOOD),
            (
                "schema",
                "return { name = \"broken\", fields = { { config = { type = \"record\", fields = { { a = { type = \"strng\" } } } } } } }\n",
            ),
        ],
        refusal: "[<STRATEGY>] schema violation (fields.1: {\n  fields = {\n    {\n      type = \"expected one of: ",
        frames: "\"\n    }\n  }\n})\nstack traceback:\n\t[C]: in function 'assert'\n",
        parse: "[declarative] schema violation (fields.1: {\n  fields = {\n    {\n      type = \"expected one of: ",
    },
    Broken {
        name: "no PRIORITY",
        modules: &[("handler", "return { VERSION = \"1.0.0\" }\n"), ("schema", GOLDEN_SCHEMA)],
        refusal: "Plugin \"broken\" cannot be loaded because its PRIORITY field is not a valid integer number, got: \"nil\".\n\n\
                  stack traceback:\n\t[C]: in function 'assert'\n",
        frames: "",
        parse: "error loading plugin schemas: on plugin 'broken': Plugin \"broken\" cannot be loaded because its PRIORITY \
                field is not a valid integer number, got: \"nil\".\n\n\n  Run with",
    },
    Broken {
        name: "no VERSION",
        modules: &[("handler", "return { PRIORITY = 10 }\n"), ("schema", GOLDEN_SCHEMA)],
        refusal: "Plugin \"broken\" cannot be loaded because its VERSION field does not follow the \"x.y.z\" format, got: \"nil\".\n\n",
        frames: "",
        parse: "error loading plugin schemas: on plugin 'broken': Plugin \"broken\" cannot be loaded because its VERSION \
                field does not follow the \"x.y.z\" format, got: \"nil\".\n",
    },
    Broken {
        name: "handler returns nothing",
        modules: &[
            ("handler", "local H = { PRIORITY = 10, VERSION = \"1.0.0\" }\n"),
            ("schema", GOLDEN_SCHEMA),
        ],
        refusal: "<KONG_LUA>/kong/db/dao/plugins.lua:331: attempt to index local 'handler' (a boolean value)\n\
                  stack traceback:\n\t<KONG_LUA>/kong/db/dao/plugins.lua:331: in function 'load_plugin_schemas'\n",
        frames: "",
        parse: "attempt to index local 'handler' (a boolean value)\n",
    },
    Broken {
        name: "daos invalid",
        modules: &[
            ("handler", GOOD),
            ("schema", GOLDEN_SCHEMA),
            (
                "daos",
                "return { { name = \"broken_things\", primary_key = { \"id\" }, fields = { { id = { type = \"strng\" } } } } }\n",
            ),
        ],
        refusal: "schema of custom plugin entity 'broken.broken_things' is invalid: [<STRATEGY>] schema violation (fields.1: {\n  \
                  type = \"expected one of: ",
        frames: "\"\n})\nstack traceback:\n",
        parse: "",
    },
];

/// Frames of Kong's init that end every traceback.
const INIT: &str = "\t<KONG_LUA>/kong/init.lua:708: in function 'init'\n\tinit_by_lua(nginx-kong.conf:44):3: in main chunk\n";

impl Broken {
    fn refusal(&self, strategy: &str) -> String {
        let head = if self.refusal.starts_with("<KONG_LUA>") { "" } else { LOADING };
        format!("{head}{}", self.refusal).replace("<STRATEGY>", strategy)
    }

    fn assert_in(&self, text: &str, before: &str, strategy: &str) {
        let wanted = format!("{before}{}", self.refusal(strategy));
        assert!(text.contains(&wanted), "{}: no\n{wanted}\nin\n{text}", self.name);
        assert!(text.contains(self.frames), "{}: no\n{}\nin\n{text}", self.name, self.frames);
        assert!(text.contains(INIT), "{}: no\n{INIT}\nin\n{text}", self.name);
    }
}

fn refused_everywhere(node: &Node, strategy: &str) {
    for broken in BROKEN {
        node.set("plugins", "bundled,golden,broken");
        node.plugin("broken", broken.modules);
        if broken.modules.is_empty() {
            std::fs::remove_dir(node.lua().join("kong/plugins/broken")).unwrap();
        }
        let check = node.kong("check <CONF>");
        assert_eq!(
            (check.code, check.out.as_str()),
            (0, "configuration at <CONF> is valid\n"),
            "{}",
            broken.name
        );
        let prepare = node.kong("prepare -c <CONF> -p <PREFIX>");
        assert_eq!(
            (prepare.code, prepare.out.as_str(), prepare.err.as_str()),
            (0, "", ""),
            "{}",
            broken.name
        );

        let log = node.reload_refused();
        assert!(log.contains("signal 1 (SIGHUP) received from "), "{log}");
        assert!(log.contains("[notice] ") && log.contains(": reconfiguring\n"), "{log}");
        broken.assert_in(&log, "init_by_lua error: ", strategy);
        assert_eq!(node.proxy("/a").status, 200, "{}: the old workers serve", broken.name);
        assert_eq!(node.ready().0, 503, "{}", broken.name);
        let root = node.get("/").json();
        assert!(
            root["pids"].get("workers").is_none() && root["pids"]["master"] == node.master().unwrap(),
            "{root}"
        );
        assert!(root["plugins"]["available_on_server"].get("broken").is_none());
        let schema = node.get("/schemas/plugins/broken");
        assert_eq!(
            (schema.status, schema.body.as_str()),
            (404, "{\"message\":\"No plugin named 'broken'\"}")
        );

        // The list is put right: a good reload heals everything.
        node.set("plugins", "bundled,golden");
        node.reload_through();
        assert_eq!(node.get("/").json()["pids"]["workers"].as_array().unwrap().len(), 2, "{}", broken.name);
    }
}

#[test]
fn a_reload_of_any_broken_plugin_is_refused_on_a_node_without_a_database() {
    refused_everywhere(&Node::dbless(), "off");
}

#[test]
fn a_reload_of_any_broken_plugin_is_refused_on_a_database() {
    let database = tempfile::tempdir().unwrap();
    refused_everywhere(&Node::database(database.path()), "postgres");
}

#[test]
fn restart_and_start_with_a_broken_plugin_leave_the_node_down() {
    let node = Node::dbless();
    for broken in BROKEN {
        node.set("plugins", "bundled,golden,broken");
        node.plugin("broken", broken.modules);
        let restart = node.kong("restart -c <CONF> -p <PREFIX>");
        assert_eq!((restart.code, restart.out.as_str()), (1, "Kong stopped\n"), "{}", broken.name);
        broken.assert_in(
            &restart.err,
            "Error: <KONG_LUA>/kong/cmd/start.lua:99: nginx: [error] init_by_lua error: ",
            "off",
        );
        assert!(
            restart
                .err
                .ends_with(&format!("{INIT}\n\n  Run with --v (verbose) or --vv (debug) for more details\n"))
        );
        assert_eq!(node.master(), None, "{}", broken.name);
        assert_eq!(node.proxy("/a").status, 0, "{}: nobody listens", broken.name);
        let start = node.kong("start -c <CONF>");
        assert_eq!((start.code, start.out.as_str()), (1, ""), "{}", broken.name);
        broken.assert_in(&start.err, "init_by_lua error: ", "off");
        assert_eq!(node.kong("prepare -c <CONF>").code, 0, "{}", broken.name);
        node.set("plugins", "bundled,golden");
        node.start();
    }
}

#[test]
fn config_parse_in_a_scratch_prefix_refuses_what_does_not_load() {
    let node = Node::new(&Datastore::Declarative("_format_version: \"3.0\"\n"));
    node.set("plugins", "bundled,golden,broken");
    for broken in BROKEN {
        node.plugin("broken", broken.modules);
        let _ = std::fs::remove_dir_all(node.path("scratch"));
        let parse =
            format!("config parse {0}/config.yml -c <CONF> -p {0}/scratch", node.root.path().display());
        let ran = node.kong(&parse);
        assert_eq!(ran.code, 1, "{}: {ran:?}", broken.name);
        assert!(ran.err.starts_with(&format!("Error: {}", broken.parse)), "{}: {}", broken.name, ran.err);
        assert!(
            ran.err.ends_with("  Run with --v (verbose) or --vv (debug) for more details\n"),
            "{}",
            ran.err
        );
        assert_eq!(ran.out, "prefix directory <TMP>/scratch not found, trying to create it\n");
        assert!(!node.path("scratch/.kong_env").exists());
        // A boot in a scratch prefix gives the real words.
        let _ = std::fs::remove_dir_all(node.path("boot"));
        let boot = node.kong(&format!("start -c <CONF> -p {}/boot", node.root.path().display()));
        assert_eq!(boot.code, 1, "{}", broken.name);
        broken.assert_in(&boot.err, "nginx: [error] init_by_lua error: ", "off");
    }
    node.plugin("broken", &[("handler", GOOD), ("schema", GOLDEN_SCHEMA)]);
    let ran = node
        .kong(&format!("config parse {0}/config.yml -c <CONF> -p {0}/scratch", node.root.path().display()));
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "parse successful\n", ""));
}

#[test]
fn names_are_taken_from_the_list_as_they_stand() {
    let node = Node::new(&Datastore::Declarative("_format_version: \"3.0\"\n"));
    for (value, complaint) in [
        ("bundled,,golden", "on plugin '':  plugin is enabled but not installed;\nno plugin found\nstack"),
        (
            "bundled golden",
            "on plugin 'bundled golden': bundled golden plugin is enabled but not installed;\n",
        ),
        (
            "\"bundled\",\"golden\"",
            "on plugin '\"bundled\"': \"bundled\" plugin is enabled but not installed;\nno plugin found; \
             on plugin '\"golden\"': \"golden\" plugin is enabled but not installed;\nno plugin found\n",
        ),
    ] {
        node.set("plugins", value);
        assert_eq!(node.kong("check <CONF>").code, 0);
        let ran = node.kong("start -c <CONF>");
        assert!(ran.code == 1 && ran.err.contains(complaint), "{value}: {}", ran.err);
    }
    for (value, loaded) in
        [(" golden , key-auth ", vec!["golden", "key-auth"]), ("golden,golden", vec!["golden"])]
    {
        node.set("plugins", value);
        node.start();
        assert_eq!(node.get("/plugins/enabled").json()["enabled_plugins"], serde_json::json!(loaded));
        assert_eq!(node.kong("quit -p <PREFIX>").code, 0);
    }
}

#[test]
fn a_version_with_a_suffix_is_cleaned_and_a_foreign_name_in_the_schema_is_ignored() {
    let node = Node::dbless();
    node.plugin(
        "broken",
        &[
            ("handler", "return { PRIORITY = 10, VERSION = \"1.0-beta\" }\n"),
            ("schema", "return { name = \"other\", fields = {} }\n"),
        ],
    );
    node.set("plugins", "bundled,golden,broken");
    node.reload_through();
    let available = node.get("/").json()["plugins"]["available_on_server"]["broken"].clone();
    assert_eq!(available, serde_json::json!({"version": "1.0", "priority": 10}));
}

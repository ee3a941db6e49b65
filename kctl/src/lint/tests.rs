//! What real plugins do and Kong's verdict on it: each written for the shape it has, each as a table of files.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use super::job::{Head, Job, Line, PluginJob};
use super::rules::{self, Severity};
use super::sandbox;
use super::target::Target;

const SCHEMA: &str = "return { name = 'p', fields = { { config = { type = 'record', fields = {} } } } }";
const HANDLER: &str = "return { PRIORITY = 7001, VERSION = '1.0.0' }";

/// Everything found, in this process: what is tested is the judgement, the limits are tested through the executable.
fn lint(kong: &str, files: &[(&str, &str)]) -> Vec<(String, String, u32, String)> {
    let heads = files.iter().map(|(path, text)| Head {
        key: format!("kong/plugins/p/{path}"),
        chunk: format!("src/{path}"),
        size: text.len(),
    });
    let job = Job::Plugin(PluginJob {
        plugin: "p".into(),
        kong: Target::parse(kong).unwrap(),
        files: heads.collect(),
        beside: vec![("resty.beside".into(), "lib/resty/beside.lua".into())],
        dicts: vec!["declared".into()],
    });
    let bytes: String = files.iter().map(|(_, text)| *text).collect();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    sandbox::obey(
        &job,
        bytes.as_bytes(),
        Rc::new(move |line| {
            if let Line::Found(raw) = line {
                heard.lock().unwrap().push((raw.rule, raw.file, raw.line, raw.message));
            }
        }),
    );
    Arc::try_unwrap(told).map_or_else(|_| Vec::new(), |m| m.into_inner().unwrap())
}

fn codes(kong: &str, files: &[(&str, &str)], least: Severity) -> Vec<String> {
    let found = lint(kong, files);
    let grave = found.iter().filter(|f| rules::find(&f.0).is_some_and(|r| r.severity >= least));
    grave.map(|f| f.0.clone()).collect()
}

/// With a good schema.
fn handler(kong: &str, text: &str) -> Vec<String> {
    codes(kong, &[("handler.lua", text), ("schema.lua", SCHEMA)], Severity::Error)
}

/// With a good handler.
fn schema(kong: &str, text: &str) -> Vec<String> {
    codes(kong, &[("handler.lua", HANDLER), ("schema.lua", text)], Severity::Error)
}

#[test]
fn handlers() {
    for (kong, text, expected) in [
        ("3.9", HANDLER, ""),
        ("3.9", "return { PRIORITY = 1, VERSION = 'v1.2' }", ""),
        ("3.9", "return { PRIORITY = -5, VERSION = '1.2.3-1' }", ""),
        (
            "3.9",
            "local H = {} H.PRIORITY, H.VERSION = 1, '1' function H:access() error('no') end return H",
            "",
        ),
        ("3.9", "return { PRIORITY = 1.5, VERSION = '1' }", "PRIORITY_INVALID"),
        ("3.9", "return { PRIORITY = 'high', VERSION = '1' }", "PRIORITY_INVALID"),
        ("3.9", "return { PRIORITY = 0/0, VERSION = '1' }", "PRIORITY_INVALID"),
        ("3.9", "return { VERSION = '1' }", "PRIORITY_INVALID"),
        ("3.9", "return { PRIORITY = 1 }", "HANDLER_VERSION_INVALID"),
        ("3.9", "return { PRIORITY = 1, VERSION = '1.2.3.4' }", "HANDLER_VERSION_INVALID"),
        ("3.9", "return { PRIORITY = 1, VERSION = 1 }", "HANDLER_VERSION_INVALID"),
        ("2.8", "return { PRIORITY = 1 }", ""),
        ("2.8", "return {}", ""),
        ("2.8", "return { PRIORITY = 'high' }", "PRIORITY_INVALID"),
        ("3.9", "local H = { VERSION = '1' }", "HANDLER_INVALID"),
        ("3.9", "return 'handler'", "HANDLER_INVALID"),
        ("3.9", "return { PRIORITY = 1, VERSION = '1'", "SYNTAX_ERROR"),
        ("3.9", "end = 1", "SYNTAX_ERROR"),
        ("3.9", "error('boom')", "LOAD_ERROR"),
        ("3.9", "error({ code = 1 })", "LOAD_ERROR"),
        ("3.9", "local x = nil return x.y", "LOAD_ERROR"),
        ("3.9", "local h = ngx.req.get_headers() return {}", "LOAD_ERROR"),
        ("3.9", "local h = kong.request.get_header('x') return {}", "LOAD_ERROR"),
        ("3.9", "ngx.timer.at(0, function() end) return {}", "LOAD_ERROR"),
        ("3.9", "return ngx.shared.mine:get('x') or { PRIORITY = 1, VERSION = '1' }", ""),
        ("3.9", "kong.cache:get('x') return {}", "LOAD_ERROR"),
        ("3.9", "while true do end", "LOAD_ENDLESS"),
        ("3.9", "while true do pcall(error) end", "LOAD_ENDLESS"),
        ("3.9", "os.exit(0)", "OS_EXIT"),
        ("3.9", "pcall(os.exit) return {}", "OS_EXIT"),
        ("3.9", "require 'kong.plugins.p.gone' return {}", "MODULE_NOT_FOUND"),
        ("3.9", "require 'kong.singletons' return {}", "MODULE_NOT_FOUND"),
        ("2.8", "require 'kong.singletons' return {}", ""),
        ("3.9", "require 'kong.plugins.p.handler' return {}", "LOAD_ERROR"),
        (
            "3.9",
            "local H = { PRIORITY = 1, VERSION = '1' } function H:response() end function H:body_filter() end return H",
            "PHASES_CONFLICT",
        ),
        ("3.9", "return setmetatable({ VERSION = '1' }, { __index = { PRIORITY = 3 } })", ""),
        ("3.9", "return { PRIORITY = math.huge, VERSION = '1' }", "PRIORITY_INVALID"),
        ("3.9", "#!/usr/bin/lua\nreturn { PRIORITY = 1, VERSION = '1' }", ""),
        ("3.9", "return { PRIORITY = tonumber(5ULL), VERSION = '1' }", ""),
    ] {
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        assert_eq!(handler(kong, text), expected, "{kong}: {text}");
    }
}

#[test]
fn plugins_of_the_first_kind() {
    let class = "local Base = require 'kong.plugins.base_plugin' local H = Base:extend()\n\
        function H:new() H.super.new(self, 'p') end function H:access(conf) H.super.access(self) end\n\
        H.PRIORITY = 1000 return H";
    assert_eq!(handler("3.9", class), ["BASE_PLUGIN_GONE"]);
    assert_eq!(handler("2.8", class), [""; 0]);
    assert_eq!(handler("0.14", class), [""; 0]);
    let either = "local ok, Base = pcall(require, 'kong.plugins.base_plugin')\n\
        local H = ok and Base:extend() or {} H.PRIORITY, H.VERSION = 1, '1.0' return H";
    assert_eq!(handler("3.9", either), [""; 0]);
    assert_eq!(handler("2.8", either), [""; 0]);
    let throws =
        "local H = require('kong.plugins.base_plugin'):extend() function H:new() error('x') end return H";
    assert_eq!(handler("2.8", throws), ["LOAD_ERROR"]);
}

#[test]
fn what_kong_brings_is_there_and_what_it_does_not_is_pretended() {
    let text = r#"
        local typedefs = require "kong.db.schema.typedefs"
        local cjson = require("cjson.safe").new()
        local http, lrucache = require "resty.http", require "resty.lrucache"
        local cache = assert(lrucache.new(200))
        local foreign = require("some.thing/else")
        local value = foreign.settings.limit * 2 + #foreign.list
        local client = foreign.new({ a = 1 }):connect() .. "x"
        for _, item in ipairs(foreign.items) do error("never") end
        for k, v in pairs(foreign) do error("never") end
        for line in foreign.lines() do local _ = line end
        local n = 0 while foreign.next() do n = n + 1 end
        local buffer, new_tab = require "string.buffer", require "table.new"
        local t = new_tab(4, 0)
        ngx.log(ngx.ERR, "loading ", ngx.now(), ngx.null, ngx.config.subsystem)
        kong.log.info("x") local log = kong.log.new and kong.log.new("x")
        local major = tonumber(kong.version:match("^%d+")) assert(major == 3 and kong.version_num >= 3009000)
        assert(require("kong.meta")._VERSION_TABLE.minor == 9)
        local bit, ffi = require "bit", require "ffi"
        ffi.cdef[[ int x(void); ]] local C = ffi.C
        local Class = require("pl.class")() function Class:_init() self.x = 1 end assert(Class().x == 1)
        assert(bit.band(6, 3) == 2 and ngx.HTTP_OK == 200 and #ngx.md5("x") == 32)
        local name = ... assert(name == "kong.plugins.p.handler")
        return { PRIORITY = 7001, VERSION = "1.0.0" }
    "#;
    assert_eq!(
        handler("3.9", text),
        [""; 0],
        "{:?}",
        lint("3.9", &[("handler.lua", text), ("schema.lua", SCHEMA)])
    );
}

#[test]
fn nothing_of_the_machine_can_be_reached() {
    for text in [
        "assert(io.open('/etc/passwd'))",
        "assert(package.loadlib)('libc.so.6', 'system')",
        "assert(loadfile('/etc/passwd'))",
        "dofile('/etc/passwd')",
        "local x = 1LL assert(package.loaded.ffi)",
        "local x = 1LL assert(not tostring(require('ffi').C):find('clib'), 'escaped') error('x')",
        "assert(loadstring('\\27LJ'))",
        "assert(string.dump)(function() end)",
        "assert(debug.getregistry()._LOADED)",
        "assert(os.getenv('HOME'))",
        "assert(type(require('jit.util').funcbc) == 'function')",
        "local s = ('x'):rep(1e9)",
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1024) .. i end",
    ] {
        let found =
            lint("3.9", &[("handler.lua", &format!("{text} return {HANDLER:?}")), ("schema.lua", SCHEMA)]);
        assert!(found.iter().any(|f| f.0.starts_with("LOAD_")), "{text}: {found:?}");
        assert!(!found.iter().any(|f| f.3.contains("escaped")), "{text}: {found:?}");
    }
}

#[test]
fn schemas() {
    let config = |fields: &str| {
        format!(
            "local typedefs = require 'kong.db.schema.typedefs' return {{ name = 'p', fields = {{ {{ consumer = typedefs.no_consumer }}, \
                 {{ protocols = typedefs.protocols_http }}, {{ config = {{ type = 'record', fields = {{ {fields} }} }} }} }} }}"
        )
    };
    for fields in [
        "",
        "{ a = { type = 'string', required = true, default = 'x', len_min = 0 } }",
        "{ a = typedefs.url { required = true } }, { b = typedefs.header_name }, { c = typedefs.port { default = 80 } }",
        "{ a = { type = 'array', elements = { type = 'string', one_of = { 'x', 'y' } }, default = { 'x' } } }",
        "{ a = { type = 'map', keys = { type = 'string' }, values = { type = 'number' }, default = { x = 1 } } }",
        "{ a = { type = 'record', fields = { { b = { type = 'integer', gt = 0, default = 5 } } } } }",
        "{ a = { type = 'number', between = { 0, 10 }, default = 3 } }",
        "{ a = { type = 'string', match = '^x', custom_validator = function() return true end } }",
        "{ a = { type = 'set', elements = { type = 'integer' } } }",
        "{ a = { type = 'string', referenceable = true, encrypted = true, description = 'ten letters or more' } }",
    ] {
        assert_eq!(schema("3.9", &config(fields)), [""; 0], "{fields}");
    }
    for fields in [
        "a = { type = 'string' }",
        "{ a = { type = 'string' }, b = { type = 'string' } }",
        "{ a = { type = 'text' } }",
        "{ a = {} }",
        "{ a = 'string' }",
        "{ 'a' }",
        "{ a = { type = 'string', enum = { 'x' } } }",
        "{ a = { type = 'string', required = 'yes' } }",
        "{ a = { type = 'array' } }",
        "{ a = { type = 'map', keys = { type = 'string' } } }",
        "{ a = { type = 'record' } }",
        "{ a = { type = 'boolean', one_of = { true } } }",
        "{ a = { type = 'string', default = 1 } }",
        "{ a = { type = 'string', one_of = { 'x' }, default = 'y' } }",
        "{ a = { type = 'integer', default = 1.5 } }",
        "{ a = { type = 'array', elements = { type = 'string' }, default = 'x' } }",
        "{ a = { type = 'string', default = '' } }",
        "{ a = { type = 'number', between = { 1 } } }",
        "{ a = { type = 'string', description = 'short' } }",
        "{ a = { type = 'record', fields = { b = { type = 'string' } } } }",
        "{ a = { type = 'string', err = '' } }",
    ] {
        assert_eq!(schema("3.9", &config(fields)), ["SCHEMA_INVALID"], "{fields}");
    }
    for (kong, text, expected) in [
        ("3.9", "return { no_consumer = true, fields = { a = { type = 'string' } } }", "SCHEMA_OLD"),
        ("3.9", "return { fields = {} }", "SCHEMA_OLD"),
        (
            "2.8",
            "return { no_consumer = true, fields = { a = { type = 'string', func = function() end } } }",
            "",
        ),
        ("2.8", "return { fields = { a = { type = 'text' } } }", "SCHEMA_INVALID"),
        (
            "3.9",
            "return { name = 'p', no_consumer = true, fields = { { config = { type = 'record', fields = {} } } } }",
            "SCHEMA_INVALID",
        ),
        ("3.9", "return { name = 'p', fields = { { mine = { type = 'string' } } } }", "SCHEMA_INVALID"),
        ("3.9", "return { name = 'p', fields = { { config = { type = 'string' } } } }", "SCHEMA_INVALID"),
        (
            "3.9",
            "return { name = 'p', fields = { { config = { type = 'record', fields = {} } } }, entity_checks = { { nonsense = {} } } }",
            "SCHEMA_INVALID",
        ),
        (
            "3.9",
            "return { name = 'p', fields = {}, entity_checks = { { at_least_one_of = { 'config.a' } } } }",
            "",
        ),
        ("3.9", "return { name = 'p' }", "SCHEMA_INVALID"),
        ("3.9", "return { fields = { { config = { type = 'record', fields = {} } } } }", "SCHEMA_INVALID"),
        (
            "3.9",
            "return { name = 'p', fields = { { config = { type = 'record', fields = { { a = { type = 'string', \
          default = require('some.lib').text } }, { b = { type = 'string', default = require('kong.constants').HEADERS.CONSUMER_ID } }, \
          require('some.lib').field, { c = require('some.lib').typed } } } } } }",
            "",
        ),
        (
            "3.9",
            "local t = require('cjson').decode(require('some.lib').text()) return { name = 'p', fields = { { config = \
          { type = 'record', fields = t.fields } } } }",
            "",
        ),
        ("3.9", "return 1", "SCHEMA_INVALID"),
        ("3.9", "local x = {}", "SCHEMA_INVALID"),
        (
            "3.9",
            "return { name = 'p', fields = { { run_on = require('kong.db.schema.typedefs').run_on_first } } }",
            "LOAD_ERROR",
        ),
        (
            "1.5",
            "return { name = 'p', fields = { { run_on = require('kong.db.schema.typedefs').run_on_first } } }",
            "",
        ),
    ] {
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        assert_eq!(schema(kong, text), expected, "{kong}: {text}");
    }
}

#[test]
fn entities_migrations_and_the_admin_api() {
    let entity = "{ name = 'things', primary_key = { 'id' }, fields = { { id = { type = 'string', uuid = true, auto = true } }, \
        { consumer = { type = 'foreign', reference = 'consumers' } } } }";
    for (kong, file, text, expected) in [
        ("3.9", "daos.lua", format!("return {{ {entity} }}"), ""),
        ("3.9", "daos.lua", format!("return {{ things = {entity} }}"), "DAOS_INVALID"),
        ("2.8", "daos.lua", format!("return {{ things = {entity} }}"), ""),
        ("3.9", "daos.lua", "return { { name = 'x', fields = {} } }".into(), "DAOS_INVALID"),
        (
            "3.9",
            "daos.lua",
            format!("return {{ {} }}", entity.replace("'consumers'", "'nothing'")),
            "DAOS_INVALID",
        ),
        ("3.9", "daos.lua", "return {}".into(), ""),
        ("3.9", "daos.lua", "return 5".into(), "DAOS_INVALID"),
        ("3.9", "api.lua", "return { ['/things'] = { GET = function() end } }".into(), ""),
        (
            "3.9",
            "api.lua",
            "local crud = require 'kong.api.crud_helpers' return {}".into(),
            "MODULE_NOT_FOUND",
        ),
        ("3.9", "api.lua", "error('x')".into(), "LOAD_ERROR"),
        ("3.9", "api.lua", "kong.cache:get('x') return {}".into(), ""),
        ("3.9", "migrations/postgres.lua", "return { { name = '2016', up = '' } }".into(), ""),
        ("3.9", "migrations/init.lua", "return { '000_base' }".into(), "MIGRATIONS_INVALID"),
        ("3.9", "migrations/init.lua", "return {}".into(), ""),
    ] {
        let files = [("handler.lua", HANDLER), ("schema.lua", SCHEMA), (file, text.as_str())];
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        assert_eq!(codes(kong, &files, Severity::Error), expected, "{kong} {file}: {text}");
    }
    for (kong, step, expected) in [
        ("3.9", "return { postgres = { up = 'select 1' } }", ""),
        ("3.9", "return { postgres = { up = '' }, cassandra = { up = '' } }", "MIGRATIONS_INVALID"),
        ("3.3", "return { postgres = { up = '' }, cassandra = { up = '' } }", ""),
        ("3.9", "return { postgres = { up = 1 } }", "MIGRATIONS_INVALID"),
        ("3.9", "return { { name = 'x', up = '' } }", "MIGRATIONS_INVALID"),
    ] {
        let files = [
            ("handler.lua", HANDLER),
            ("schema.lua", SCHEMA),
            ("migrations/init.lua", "return { '000_base' }"),
            ("migrations/000_base.lua", step),
        ];
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        assert_eq!(codes(kong, &files, Severity::Error), expected, "{kong}: {step}");
    }
}

#[test]
fn what_is_seen_without_running_it() {
    let text = r#"
        local H = { PRIORITY = 900, VERSION = "1.0.0" }
        function H:access(conf)
          require "kong.plugins.p.later"
          local there = require "kong.plugins.p.there"
          require "resty.unknown"
          pcall(require, "resty.maybe")
          require "resty.beside"
          require "kong.plugins.other.util"
          require "kong.plugins.jwt.jwt_parser"
          require "kong.singletons"
          require(conf.module)
          os.execute("id")
          os.exit(1)
          counter = 1
        end
        return H
    "#;
    let files = [
        ("handler.lua", text),
        ("schema.lua", SCHEMA),
        ("there.lua", "return {"),
        ("unused.lua", "return {"),
    ];
    let found = lint("3.9", &files);
    let at = |rule: &str| {
        found.iter().find(|f| f.0 == rule).map(|f| (f.1.rsplit('/').next().unwrap_or("").to_owned(), f.2))
    };
    for (rule, file, line) in [
        ("MODULE_NOT_PACKAGED", "handler.lua", 4),
        ("SYNTAX_ERROR", "there.lua", 1),
        ("SYNTAX_ERROR_UNUSED", "unused.lua", 1),
        ("DEPENDENCY", "handler.lua", 6),
        ("DEPENDENCY_OPTIONAL", "handler.lua", 7),
        ("MODULE_LEFT_OUT", "handler.lua", 8),
        ("OTHER_PLUGIN", "handler.lua", 9),
        ("BUNDLED_MODULE", "handler.lua", 10),
        ("MODULE_GONE", "handler.lua", 11),
        ("DYNAMIC_REQUIRE", "handler.lua", 12),
        ("RUNS_COMMANDS", "handler.lua", 13),
        ("OS_EXIT_CALL", "handler.lua", 14),
        ("GLOBAL_WRITTEN", "handler.lua", 15),
        ("PRIORITY_TAKEN", "handler.lua", 0),
    ] {
        assert_eq!(at(rule), Some((file.to_owned(), line)), "{rule}: {found:#?}");
    }
}

/// What OpenResty's LuaJIT takes and refuses: with parts of Lua 5.2, without what came to LuaJIT later.
#[test]
fn the_grammar_is_that_of_kong() {
    for (text, fine) in [
        ("for _ = 1, 2 do break local x end", true),
        ("local a; ;; local b", true),
        ("goto done ::done::", true),
        ("local t = table.pack(1, 2) assert(t.n == 2)", true),
        ("assert(#setmetatable({}, { __len = function() return 3 end }) == 3)", true),
        ("assert(string.rep('a', 2, ',') == 'a,a')", true),
        ("local a = 0x1p4 + 1LL + 0b11", true),
        ("local a = 5 & 2", false),
        ("local a = 5 | 2", false),
        ("local a = ~5", false),
        ("local a = 1 << 2", false),
        ("local a = 5 // 2", false),
        ("local a = true ? 1 : 2", false),
        ("local a = b?.c", false),
        ("local a = 1 a += 1", false),
        ("local a = 1 != 2", false),
        ("for _ = 1, 2 do continue end", false),
        ("const a = 1", false),
        ("local a <const> = 1", false),
        ("local a = |x| -> x", false),
    ] {
        let handler = format!("{text}\n{HANDLER}");
        let files = [("handler.lua", handler.as_str()), ("schema.lua", SCHEMA)];
        let expected: &[&str] = if fine { &[] } else { &["SYNTAX_ERROR"] };
        assert_eq!(codes("3.9", &files, Severity::Error), expected, "{text}");
    }
}

#[test]
fn any_bytes_will_do() {
    for text in ["", "\0\0\0", "\u{feff}return {}", "return", "--[==[", "\"", "return ...", "return (...)()"]
    {
        let files = [
            ("handler.lua", text),
            ("schema.lua", text),
            ("daos.lua", text),
            ("api.lua", text),
            ("migrations/init.lua", text),
        ];
        for kong in ["0.14", "2.8", "3.9"] {
            let found = lint(kong, &files);
            assert!(found.iter().all(|f| rules::find(&f.0).is_some()), "{text:?}: {found:?}");
        }
    }
}

#[test]
fn dictionaries_that_nginx_is_not_told_of() {
    for (kong, name, told) in [
        ("3.9", "my_cache", true),
        ("3.9", "declared", false),
        ("3.9", "kong_db_cache", false),
        ("3.9", "kong_cassandra", true),
        ("2.8", "kong_cassandra", false),
    ] {
        let text = format!(
            "local dict = ngx.shared.{name}\ndict:set('a', 1)\nreturn {{ PRIORITY = 7001, VERSION = '1.0.0' }}"
        );
        let files = [("handler.lua", text.as_str()), ("schema.lua", SCHEMA)];
        assert_eq!(handler(kong, &text), [""; 0], "{kong} {name}: the node decides");
        let found = codes(kong, &files, Severity::Warning);
        assert_eq!(found.contains(&"SHARED_DICT_UNDECLARED".to_owned()), told, "{kong} {name}: {found:?}");
    }
}

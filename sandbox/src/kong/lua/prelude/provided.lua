-- Names of the modules that Kong 3.9.1 and what it ships with provide, as a running one can require them; plugins
-- apart. A group's names stand behind its prefix; where a library has hundreds of parts, all below it count.
local exact, below = {}, {}
for _, prefix in ipairs { "resty.aws", "resty.gcp", "resty.openssl", "lapis" } do below[prefix] = true end
local function names(prefix, list)
  for name in list:gmatch("%S+") do exact[prefix == "" and name or prefix .. "." .. name] = true end
end

names("", [[
  MessagePack ansicolors argparse binaryheap bit cjson date etlua ffi ffi-zlib inspect jit kong
  kong_standin lapis lfs loadkit logging lpeg lsyslog ltn12 lua-ffi-zlib lua_pack lua_system_constants
  luatz luaxxhash lxp lyaml mime multipart pb pgmoon pl protoc re socket ssl system tablepool term version
  yaml]])
names("cjson", [[safe]])
names("jit", [[
  bc bcsave dis_arm dis_arm64 dis_arm64be dis_mips dis_mips64 dis_mips64el dis_mips64r6 dis_mips64r6el
  dis_mipsel dis_ppc dis_x64 dis_x86 dump opt p profile util v vmdef zone]])
names("kong", [[
  admin_gui api cache cluster_events clustering cmd concurrency conf_loader constants db deprecation
  dynamic_hook enterprise_edition error_handlers global globalpatches hooks init llm meta pdk plugins
  reports router status timing workspaces]])
names("kong.admin_gui", [[init utils]])
names("kong.api", [[api_helpers arguments arguments_decoder endpoints init]])
names("kong.api.routes", [[
  cache certificates clustering config consumers debug dns filter_chains health kong plugins snis tags
  targets upstreams]])
names("kong.cache", [[init warmup]])
names("kong.cluster_events", [[init]])
names("kong.cluster_events.strategies", [[off postgres]])
names("kong.clustering", [[compat config_helper control_plane data_plane events init tls utils]])
names("kong.clustering.compat", [[checkers init removed_fields version]])
names("kong.clustering.rpc", [[callbacks concentrator future json_rpc_v2 manager queue socket utils]])
names("kong.clustering.services", [[sync]])
names("kong.clustering.services.sync", [[hooks init rpc]])
names("kong.clustering.services.sync.strategies", [[postgres]])
names("kong.cmd", [[
  check config drain health hybrid init migrations prepare quit reload restart roar start stop vault
  version]])
names("kong.cmd.utils", [[
  env inject_confs kill log migrations nginx_signals prefix_handler process_secrets tty]])
names("kong.conf_loader", [[constants init listeners parse sys]])
names("kong.db", [[dao declarative errors init iteration schema strategies utils]])
names("kong.db.dao", [[
  ca_certificates certificates init key_sets keys plugins services snis tags targets vaults workspaces]])
names("kong.db.declarative", [[export import init marshaller migrations]])
names("kong.db.declarative.migrations", [[init route_path]])
names("kong.db.migrations", [[core migrate_path_280_300 state subsystems]])
names("kong.db.migrations.core", [[
  000_base 003_100_to_110 004_110_to_120 005_120_to_130 006_130_to_140 007_140_to_150 008_150_to_200
  009_200_to_210 010_210_to_211 011_212_to_213 012_213_to_220 013_220_to_230 014_230_to_270 015_270_to_280
  016_280_to_300 017_300_to_310 018_310_to_320 019_320_to_330 020_330_to_340 021_340_to_350 022_350_to_360
  023_360_to_370 024_380_to_390 init]])
names("kong.db.migrations.operations", [[200_to_210 212_to_213 280_to_300 331_to_332]])
names("kong.db.schema.entities", [[
  ca_certificates certificates clustering_data_planes consumers filter_chains key_sets keys parameters
  plugins routes routes_subschemas services snis tags targets upstreams vaults workspaces]])
names("kong.db.schema", [[
  entity init json metaschema plugin_loader topological_sort typedefs vault_loader]])
names("kong.db.schema.others", [[declarative_config migrations wasm_filter]])
names("kong.db.strategies", [[connector init off postgres]])
names("kong.db.strategies.off", [[connector init tags]])
names("kong.db.strategies.postgres", [[connector init plugins services tags]])
names("kong.dns", [[client stats utils]])
names("kong.dynamic_hook", [[init]])
names("kong.llm.adapters", [[bedrock gemini]])
names("kong.llm.drivers", [[
  anthropic azure bedrock cohere gemini huggingface llama2 mistral openai shared]])
names("kong.llm", [[init schemas]])
names("kong.llm.plugin", [[base crud_handler ctx observability]])
names("kong.llm.plugin.shared-filters", [[
  enable-buffering normalize-json-response normalize-request normalize-response-header normalize-sse-chunk
  parse-json-response parse-request parse-sse-chunk serialize-analytics]])
names("kong.llm.schemas", [[init]])
names("kong.observability", [[logs otlp]])
names("kong.observability.otlp", [[init proto]])
names("kong.observability.tracing", [[instrumentation propagation request_id tracing_context]])
names("kong.observability.tracing.propagation.extractors", [[_base aws b3 datadog gcp jaeger ot w3c]])
names("kong.observability.tracing.propagation", [[init schema utils]])
names("kong.observability.tracing.propagation.injectors", [[
  _base aws b3 b3-single datadog gcp jaeger ot w3c]])
names("kong.pdk", [[
  client cluster ctx init ip log nginx node plugin request response router service table telemetry tracing
  vault]])
names("kong.pdk.client", [[tls]])
names("kong.pdk.private", [[checks node phases rate_limiting]])
names("kong.pdk.service", [[request response]])
names("kong.resty", [[ctx mlcache]])
names("kong.resty.dns", [[client utils]])
names("kong.resty.mlcache", [[init ipc]])
names("kong.router", [[atc compat expressions fields init traditional transform utils]])
names("kong.runloop", [[
  balancer certificate events handler log_level plugin_servers plugins_iterator upstream_ssl wasm]])
names("kong.runloop.balancer", [[
  balancers consistent_hashing healthcheckers init latency least_connections round_robin targets upstreams]])
names("kong.runloop.plugin_servers", [[init plugin process rpc]])
names("kong.runloop.plugin_servers.rpc", [[init mp_rpc pb_rpc util]])
names("kong.runloop.wasm", [[plugins properties]])
names("kong.status", [[init ready]])
names("kong.templates", [[
  kong_defaults kong_yml nginx nginx_inject nginx_kong nginx_kong_gui_include nginx_kong_inject
  nginx_kong_stream nginx_kong_stream_inject wasmtime_cache_config]])
names("kong.timing", [[context hooks init]])
names("kong.timing.hooks", [[dns http init redis socket]])
names("kong.tls.plugins", [[certificate sni_filter]])
names("kong.tools", [[
  aws_stream cjson dns emmy_debugger grpc gzip http ip kong-lua-sandbox mime_type module protobuf queue
  queue_schema rand request_aware_table sandbox sha256 stream_api string system table time timestamp uri
  utils uuid yield]])
names("kong.tools.redis", [[schema]])
names("kong.vaults", [[env]])
names("kong.vaults.env", [[init schema]])
names("kong.workspaces", [[init]])
names("lib", [[ffi-zlib]])
names("logging", [[console email envconfig file nginx rolling_file rsyslog socket sql syslog]])
names("luatz", [[gettime init parse strftime timetable tzcache tzfile tzinfo]])
names("lxp", [[lom threat totable]])
names("lyaml", [[explicit functional implicit init]])
names("mime", [[core]])
names("net", [[url]])
names("ngx", [[balancer base64 errlog ocsp pipe process re req resp semaphore ssl]])
names("ngx.ssl", [[clienthello session]])
names("pgmoon", [[arrays bit cqueues crypto hstore init json socket util]])
names("pl", [[
  Date List Map MultiMap OrderedMap Set app array2d class compat comprehension config data dir file func
  import_into init input lapp lexer luabalanced operator path permute pretty seq sip strict stringio
  stringx tablex template test text types url utils xml]])
names("rds", [[parser]])
names("redis", [[parser]])
names("resty.acme", [[autossl client openssl util]])
names("resty.acme.challenge", [[dns-01 http-01 tls-alpn-01]])
names("resty.acme.dns_provider", [[cloudflare dynv6]])
names("resty.acme.eab", [[zerossl-com]])
names("resty.acme.storage", [[consul etcd file redis shm vault]])
names("resty", [[
  ada aes aws core counter events evp gcp healthcheck hmac http http_connect http_headers ipmatcher
  jit-uuid jwt jwt-validators ljsonschema lmdb lock lrucache luasocket md5 memcached mysql openssl random
  redis session sha sha1 sha224 sha256 sha384 sha512 shell signal simdjson snappy string timer timerng
  upload]])
names("resty.ada", [[lib search utils]])
names("resty.core", [[
  base base64 coroutine ctx exit hash misc ndk param phase regex request response shdict socket time uri
  utils var worker]])
names("resty.dns", [[resolver]])
names("resty.events", [[
  broker callback codec compat disable_listening frame init protocol queue utils worker]])
names("resty.events.compat", [[init]])
names("resty.kong", [[grpc log peer_conn tag tls var]])
names("resty.limit", [[conn count req traffic]])
names("resty.ljsonschema", [[init metaschema store utf8]])
names("resty.lmdb", [[cdefs prefix status transaction]])
names("resty.lrucache", [[pureffi]])
names("resty.luasocket", [[http init]])
names("resty.router", [[cdefs context router schema]])
names("resty.session", [[dshm file memcached mysql postgres redis shm utils]])
names("resty.session.file", [[thread utils]])
names("resty.session.redis", [[cluster common sentinel]])
names("resty.simdjson", [[cdefs decoder encoder init]])
names("resty.timerng", [[array constants init job utils wheel]])
names("resty.timerng.thread", [[group loop super worker]])
names("resty.timerng.wheel", [[group init]])
names("resty.upstream", [[healthcheck]])
names("resty.websocket", [[client protocol server]])
names("socket", [[core ftp headers http serial smtp tp unix url]])
names("ssl", [[https]])
names("string", [[buffer]])
names("table", [[clear clone isarray isempty new nkeys]])
names("thread", [[exkeys]])

return function(name)
  if exact[name] then return true end
  for prefix in name:gmatch("()%.") do
    if below[name:sub(1, prefix - 1)] then return true end
  end
  return false
end

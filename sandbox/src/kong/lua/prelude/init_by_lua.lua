-- The chunk nginx runs: `init_by_lua_block` of nginx-kong.conf.
Kong = require "kong"
--@3
Kong.init()

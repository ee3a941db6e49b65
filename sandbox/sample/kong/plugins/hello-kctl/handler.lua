-- Sample plugin: says hello in a response header.
local HelloHandler = {
  PRIORITY = 800,
  VERSION = "1.0.0",
}

function HelloHandler:header_filter(conf)
  kong.response.set_header(conf.header, conf.greeting)
end

return HelloHandler

local typedefs = require "kong.db.schema.typedefs"

return {
  name = "hello-kctl",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = {
        type = "record",
        fields = {
          { header = { type = "string", required = true, default = "x-hello" } },
          { greeting = { type = "string", required = true, default = "from kctl" } },
        },
      },
    },
  },
}

-- What Kong's version reader makes of a plugin's VERSION: at most three numbers, leading v and anything after dropped.
local M = {}

-- "v1.2.3-1" -> "1.2.3"; nil for "scm", "", "1.2.3.4".
function M.clean(text)
  local body = string.match(text, "^%s*[vV]?(%d[%d%.]*)")
  if not body or string.find(body, "..", 1, true) then
    return nil
  end
  body = string.gsub(body, "%.$", "")
  local parts = {}
  for part in string.gmatch(body, "[^%.]+") do
    parts[#parts + 1] = part
  end
  if #parts > 3 then
    return nil
  end
  return table.concat(parts, ".")
end

return M

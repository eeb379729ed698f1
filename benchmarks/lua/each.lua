-- Posts every line of a file exactly once and says so when all are answered: a connection that has nothing left to
-- send meanwhile asks for something else. Arguments: the file, the content type.
dofile(debug.getinfo(1, "S").source:match("^@(.*)/") .. "/report.lua")

local bodies, answered, spare, other = {}, 0, 256, nil
local sent = -1 -- wrk asks for one request that it doesn't send

function init(args)
  other = wrk.format("GET", "/healthz")
  wrk.method = "POST"
  wrk.headers["Content-Type"] = args[2]
  for line in io.lines(args[1]) do
    bodies[#bodies + 1] = wrk.format(nil, nil, nil, line)
  end
end

function request()
  sent = sent + 1
  return bodies[sent] or other
end

function response()
  answered = answered + 1
  if answered == #bodies + spare then
    io.write("ENDED\n")
    io.flush()
  end
end

-- Posts the lines of a file, one after the other. Arguments: the file, the content type, and "once" or nothing.
-- Without "once" it starts over after the last line. With it every line is posted exactly once, and ENDED is printed
-- when all responses have arrived. Until then a connection that has no line left to send gets /healthz.
dofile(debug.getinfo(1, "S").source:match("^@(.*)/") .. "/report.lua")

local bodies, other = {}, nil
local sent = -1 -- wrk requests one more than it sends
local answered, spare = 0, 256

local function count()
  answered = answered + 1
  if answered == #bodies + spare then
    io.write("ENDED\n")
    io.flush()
  end
end

function init(args)
  if args[3] == "once" then
    other = wrk.format("GET", "/healthz")
    response = count -- only if needed, because it slows wrk down
  end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = args[2]
  for line in io.lines(args[1]) do
    bodies[#bodies + 1] = wrk.format(nil, nil, nil, line)
  end
end

function request()
  sent = sent + 1
  return bodies[sent] or other or bodies[(sent - 1) % #bodies + 1]
end

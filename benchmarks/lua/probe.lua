-- Sends a request now and then, like a user during the load. Argument: mean milliseconds between two requests.
dofile(debug.getinfo(1, "S").source:match("^@(.*)/") .. "/report.lua")

local mean = 20

function init(args)
  mean = tonumber(args[1]) or mean
end

function delay()
  return math.random(1, 2 * mean)
end

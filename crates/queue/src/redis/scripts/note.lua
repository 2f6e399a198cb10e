-- Notes of running jobs, in the order they were made; each counts once, however often it comes.
-- ARGV[3..]: for each note 9 values: job, epoch, node, number, 'S' about to send, 'L' answered or '' for
--   those that are only events, line number, command, its result (JSON), the event (JSON).
-- Answer: the jobs whose claim is stale.
local stale = {}
for at = 3, #ARGV, 9 do
  local id, epoch, node, number, sort, line, command, result, what = unpack(ARGV, at, at + 8)
  local key = P .. 'job:' .. id
  local v = call('HMGET', key, 'status', 'epoch', 'node', 'noted', 'device')
  if v[1] ~= 'started' or v[2] ~= epoch or v[3] ~= node then
    stale[#stale + 1] = id
  elseif tonumber(v[4] or 0) < tonumber(number) then
    if sort == 'S' then
      call('HSET', key, 'noted', number, 'sending', command, 'sending_number', line)
    elseif sort == 'L' then
      call('HDEL', key, 'sending', 'sending_number')
      call('RPUSH', P .. 'lines:' .. id, result)
      call('HINCRBY', key, 'answered', 1)
      call('HSET', key, 'noted', number, 'last_line', command)
    else
      call('HSET', key, 'noted', number)
    end
    event(now, id, v[5], what)
  end
end
return answer(stale)

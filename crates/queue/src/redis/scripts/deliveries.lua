-- Messages of the outbox that are due, in the hands of one courier for a while.
-- ARGV[3] how many, [4] for how long in microseconds, [5..] the nodes of the asking process.
-- Answer: for each its job, attempt, epoch, sealed words and the job's record; microseconds until the next one, or ''.
local limit, hold = tonumber(ARGV[3]), tonumber(ARGV[4])
for at = 5, #ARGV do call('SREM', P .. 'wake:' .. ARGV[at], 'outbox') end
local taken = {}
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'outbox', '-inf', int(now), 'LIMIT', 0, limit)) do
  local key = P .. 'job:' .. id
  if call('EXISTS', key) == 1 then
    local attempt = call('HINCRBY', key, 'attempts', 1)
    local epoch = next_epoch()
    call('HSET', key, 'courier', epoch)
    call('ZADD', P .. 'outbox', int(now + hold), id)
    taken[#taken + 1] = { id, tostring(attempt), epoch, call('HGET', key, 'notify') or '',
      call('HMGET', key, unpack(RECORD)) }
  else
    call('ZREM', P .. 'outbox', id)
  end
end
local first = call('ZRANGE', P .. 'outbox', 0, 0, 'WITHSCORES')
outbox_changed()
return answer(taken, first[2] and int(math.max(0, tonumber(first[2]) - now)) or '')

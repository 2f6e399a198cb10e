-- Does what has fallen due, at most ARGV[3] things. Any engine may run it at any time.
-- ARGV[4..]: lives of nodes whose process says that every note of theirs has arrived.
-- Answer: '1' when more is due, the devices that need a node.
local limit = tonumber(ARGV[3])
local vouched, homeless, more = {}, {}, '0'
for at = 4, #ARGV do vouched[ARGV[at]] = true end
local items = call('ZRANGEBYSCORE', P .. 'timers', '-inf', int(now), 'LIMIT', 0, limit)
for _, item in ipairs(items) do
  local sort, name = string.sub(item, 1, 1), string.sub(item, 3)
  local over = true
  if sort == 'j' then
    -- What is done now may set the job's next time.
    call('ZREM', P .. 'timers', item)
    job_is_due(name)
    over = false
  elseif sort == 'n' then
    over = take_all(name, vouched[call('HGET', P .. 'node:' .. name, 'life') or ''], 100)
  elseif sort == 'h' then
    if call('SISMEMBER', P .. 'homeless', name) == 1 then
      homeless[#homeless + 1] = name
      -- Whoever is told may die, or its scheduler may fail: asked again until a node has it.
      call('ZADD', P .. 'timers', int(now + 15000000), item)
      over = false
    end
  elseif sort == 'b' then
    call('ZREM', P .. 'timers', item)
    balance()
    over = false
  elseif sort == 'o' then
    outbox_changed()
    over = false
  end
  if over then call('ZREM', P .. 'timers', item) elseif sort == 'n' then more = '1' end
end
if #items == limit then more = '1' end
return answer(more, homeless)

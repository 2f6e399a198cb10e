-- Makes a node known.
-- ARGV[3] node, [4] its new life, [5] instance, [6] capacity, [7] '1' it owns devices, [8] '1' it serves
-- FifoQ, [9] '1' when its process vouches for the notes of the life before.
-- Answer: 'taken' when it lives elsewhere, 'again' when what an earlier life held is not ended yet,
-- 'joined' and what it is signalled.
local node, life, instance, capacity, devices, fifo, vouched = unpack(ARGV, 3, 9)
local key = P .. 'node:' .. node
local v = call('HMGET', key, 'instance', 'alive', 'life')
if v[3] and v[3] ~= life then
  if v[2] == '1' and v[1] ~= instance then return answer('taken', {}) end
  if not take_all(node, vouched == '1', 100) then return answer('again', {}) end
  call('DEL', key, P .. 'lost:' .. node)
end
local untl = int(now + LEASE)
call('HSET', key, 'instance', instance, 'life', life, 'capacity', capacity, 'devices', devices, 'fifo', fifo,
  'alive', 1, 'joined', int(now), 'renewed', int(now), 'until', untl)
call('SADD', P .. 'nodes', node)
if devices == '1' then call('SADD', P .. 'live:devices', node) end
if fifo == '1' then call('SADD', P .. 'live:fifo', node) end
call('ZADD', P .. 'timers', untl, 'n:' .. node)
call('HSET', NODE_MAP, node, '{"hostname":' .. cjson.encode(node) .. ',"count":0,"capacity":' .. capacity
  .. ',"queue":' .. cjson.encode('NodeQ_' .. node) .. '}')
if PLACED then
  for _, device in ipairs(call('SMEMBERS', P .. 'homeless')) do
    call('ZADD', P .. 'timers', int(now), 'h:' .. device)
  end
  -- Once it serves what it got, the others hand over what is too much for them.
  if devices == '1' then call('ZADD', P .. 'timers', int(now + 1000000), 'b:') end
elseif devices == '1' then
  for _, device in ipairs(call('SMEMBERS', P .. 'ready')) do call('SADD', P .. 'wake:' .. node, 'd:' .. device) end
end
if fifo == '1' and call('EXISTS', P .. 'fifo-ready') == 1 then call('SADD', P .. 'wake:' .. node, 'fifo') end
local first = call('ZRANGE', P .. 'outbox', 0, 0, 'WITHSCORES')
if first[2] and tonumber(first[2]) <= now then call('SADD', P .. 'wake:' .. node, 'outbox') end
return answer('joined', call('SMEMBERS', P .. 'wake:' .. node))

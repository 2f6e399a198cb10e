-- A node says that it lives: its leases are prolonged.
-- ARGV[3] node, [4] its life, [5] up to where it has heard of lost leases.
-- Answer: 'unknown'; 'again' when what it lost is still being ended; 'renewed', or 'woken' when it had been
-- written off; then the leases lost ("epoch device", each followed by its place), and what the node was
-- told and has not answered.
local node, life = ARGV[3], ARGV[4]
local key = P .. 'node:' .. node
local v = call('HMGET', key, 'life', 'alive', 'capacity', 'devices', 'fifo')
if v[1] ~= life then return answer('unknown', {}, {}) end
local woken = v[2] ~= '1'
if woken then
  if call('EXISTS', P .. 'running:' .. node, P .. 'leases:' .. node, P .. 'given:' .. node) > 0 then
    return answer('again', {}, {})
  end
  if v[4] == '1' then
    call('SADD', P .. 'live:devices', node)
    if not PLACED then
      for _, device in ipairs(call('SMEMBERS', P .. 'ready')) do
        call('SADD', P .. 'wake:' .. node, 'd:' .. device)
      end
    end
  end
  local first = call('ZRANGE', P .. 'outbox', 0, 0, 'WITHSCORES')
  if first[2] and tonumber(first[2]) <= now then call('SADD', P .. 'wake:' .. node, 'outbox') end
  if v[5] == '1' then
    call('SADD', P .. 'live:fifo', node)
    if call('EXISTS', P .. 'fifo-ready') == 1 then call('SADD', P .. 'wake:' .. node, 'fifo') end
  end
end
local untl = int(now + LEASE)
call('HSET', key, 'alive', 1, 'renewed', int(now), 'until', untl)
call('ZADD', P .. 'timers', untl, 'n:' .. node)
local owned = call('SCARD', P .. 'leases:' .. node) + call('SCARD', P .. 'given:' .. node)
call('HSET', NODE_MAP, node, '{"hostname":' .. cjson.encode(node) .. ',"count":' .. owned .. ',"capacity":' .. v[3]
  .. ',"queue":' .. cjson.encode('NodeQ_' .. node) .. '}')
call('ZREMRANGEBYSCORE', P .. 'lost:' .. node, '-inf', ARGV[5])
local lost = call('ZRANGE', P .. 'lost:' .. node, 0, -1, 'WITHSCORES')
return answer(woken and 'woken' or 'renewed', lost, call('SMEMBERS', P .. 'wake:' .. node))

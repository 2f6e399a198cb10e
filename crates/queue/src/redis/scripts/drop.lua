-- Ends what a life of a node held, in steps.
-- ARGV[3] node, [4] its life or '' for any, [5] '1' when its process vouches for its notes,
-- [6] '1' to strike the node off when nothing is left. Answer: '1' when nothing is left.
local node, life, vouched, remove = ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6] == '1'
local known = call('HGET', P .. 'node:' .. node, 'life')
if not known or (life ~= '' and known ~= life) then return answer('1') end
if not take_all(node, vouched, 100) then return answer('0') end
call('ZREM', P .. 'timers', 'n:' .. node)
if remove then
  call('DEL', P .. 'node:' .. node, P .. 'lost:' .. node)
  call('SREM', P .. 'nodes', node)
end
return answer('1')

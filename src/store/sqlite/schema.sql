-- Records by key. Versions are 32 hexadecimal digits, times are milliseconds UTC, bodies are JSON.
create table mfa_record (
    key text not null primary key collate binary,
    version text not null,
    expires_at integer,
    body text not null
) strict;

create index mfa_record_expires_at on mfa_record (expires_at) where expires_at is not null;

-- For people and reports; they hold no secret. t/<tenant>/session/<handle>:
create view mfa_sessions as
select tenant, substr(rest, 9) as handle, json_extract(body, '$.user') as user_id,
    strftime('%Y-%m-%dT%H:%M:%SZ', expires_at / 1000, 'unixepoch') as expires_at
from (
    select substr(key, 3, instr(substr(key, 3), '/') - 1) as tenant,
        substr(key, 3 + instr(substr(key, 3), '/')) as rest, body, expires_at
    from mfa_record where key >= 't/' and key < 't0'
)
where rest >= 'session/' and rest < 'session0' and instr(substr(rest, 9), '/') = 0;

-- t/<tenant>/code/<id>:
create view mfa_codes as
select tenant, substr(rest, 6) as id,
    strftime('%Y-%m-%dT%H:%M:%SZ', expires_at / 1000, 'unixepoch') as expires_at
from (
    select substr(key, 3, instr(substr(key, 3), '/') - 1) as tenant,
        substr(key, 3 + instr(substr(key, 3), '/')) as rest, expires_at
    from mfa_record where key >= 't/' and key < 't0'
)
where rest >= 'code/' and rest < 'code0' and instr(substr(rest, 6), '/') = 0;

-- user/<id>:
create view mfa_users as
select json_extract(body, '$.id') as user_id, json_extract(body, '$.primary') as is_primary,
    json_array_length(body, '$.logins') as login_methods,
    strftime('%Y-%m-%dT%H:%M:%SZ',
        (select min(json_extract(value, '$.joined_at')) from json_each(body, '$.logins')) / 1000,
        'unixepoch') as joined_at
from mfa_record where key >= 'user/' and key < 'user0' and instr(substr(key, 6), '/') = 0;

create view mfa_login_methods as
select json_extract(body, '$.id') as user_id, json_extract(value, '$.id') as login_id,
    json_extract(value, '$.kind') as kind, json_extract(value, '$.tenants') as tenants,
    json_extract(value, '$.verified') as is_verified, json_extract(value, '$.email') as email,
    json_extract(value, '$.phone') as phone, json_extract(value, '$.third_party.provider') as provider,
    json_extract(value, '$.third_party.subject') as subject,
    strftime('%Y-%m-%dT%H:%M:%SZ', json_extract(value, '$.joined_at') / 1000, 'unixepoch') as joined_at
from mfa_record, json_each(mfa_record.body, '$.logins')
where mfa_record.key >= 'user/' and mfa_record.key < 'user0'
    and instr(substr(mfa_record.key, 6), '/') = 0;

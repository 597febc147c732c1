import type { Profile } from './api'

const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: 'long', timeStyle: 'short' })

export function ProfileView({ profile }: { profile: Profile }) {
  const { name, email, bio, updated_at: changed } = profile
  return (
    <div className="profile">
      <p className="avatar" aria-hidden="true">
        {initials(name || email)}
      </p>
      <dl>
        <dt>Name</dt>
        <dd>{name || <span className="unset">Not given yet</span>}</dd>
        <dt>Email</dt>
        <dd>{email}</dd>
        <dt>About you</dt>
        <dd className="bio">{bio || <span className="unset">Nothing written yet</span>}</dd>
        <dt>Last changed</dt>
        <dd>
          <time dateTime={changed}>{dateAndTime.format(new Date(changed))}</time>
        </dd>
      </dl>
    </div>
  )
}

function initials(name: string): string {
  const words = name.trim().split(/\s+/)
  const letters = [words[0], words.length > 1 ? words.at(-1) : undefined].map((word) => Array.from(word ?? '')[0] ?? '')
  return letters.join('').toUpperCase()
}
